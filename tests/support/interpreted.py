"""Tests with interpreted Triton kernels run in a process of their own.

Triton decides when it is imported whether kernels are compiled or interpreted; in the process of
the other tests it must stay as it is.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[2]
#: seconds; the tests below it have 20 more
_LIMIT_S = 380.0

needs_triton = pytest.mark.skipif(
    not importlib.util.find_spec("triton"), reason="triton is not installed here"
)
takes_long = pytest.mark.timeout(_LIMIT_S + 20.0)


def all_pass_interpreted(name: str) -> None:
    """The tests of tests/unit/``name``."""
    child = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", f"tests/unit/{name}"],
        cwd=_ROOT,
        env=os.environ | {"TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=_LIMIT_S,
        check=False,
    )
    assert child.returncode == 0, child.stdout + child.stderr
    assert " passed" in child.stdout
    assert "skipped" not in child.stdout
