"""A pytest plugin: `trackpy.locate` is our locate, for trackpy's own tests.

TRACKPY_TESTS is the folder trackpy/tests of trackpy's sources, which its packages leave out.
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

import trackpy
import trackpy.feature

from tomostream_ioc.tracking import Locator

_by_trackpy = trackpy.locate
_paths: Counter[str] = Counter()
_locating: list[bool] = []


def _locate(raw_image: Any, *arguments: Any, **keywords: Any) -> Any:
    if _locating:  # the fallback itself
        return _by_trackpy(raw_image, *arguments, **keywords)
    _locating.append(True)
    try:
        with Locator(*arguments, **keywords) as locator:
            try:
                return locator.locate(raw_image)
            finally:
                _paths["fast"] += locator.counts.fast
                _paths["trackpy"] += locator.counts.trackpy
    finally:
        _locating.clear()


def pytest_configure() -> None:
    trackpy.__path__.append(str(Path(os.environ["TRACKPY_TESTS"]).parent))
    trackpy.locate = trackpy.feature.locate = _locate


def pytest_terminal_summary(terminalreporter: Any) -> None:
    terminalreporter.write_line(f"images: {_paths['fast']} fast, {_paths['trackpy']} by trackpy")
