"""These tests run on a machine with torch, Triton, numpy and pytest alone, too."""

import importlib.util

import pytest

_HAS_TIMEOUT = importlib.util.find_spec("pytest_timeout") is not None


def pytest_addoption(parser: pytest.Parser) -> None:
    if not _HAS_TIMEOUT:  # the settings of the project name it
        parser.addini("timeout", "seconds that a test may take: pytest-timeout is not here")


def pytest_configure(config: pytest.Config) -> None:
    if not _HAS_TIMEOUT:
        config.addinivalue_line("markers", "timeout(seconds): of pytest-timeout, not here")
