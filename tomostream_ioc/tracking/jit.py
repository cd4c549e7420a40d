"""How the loops over pixels are compiled: without the GIL, kept on disk where that is possible."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import njit

#: fast arithmetic, but NaN and infinity stay what they are: bad pixels are found by them
_FAST = {"reassoc", "contract", "nsz", "arcp"}


def kernel(function: Callable[..., Any]) -> Any:
    """Compile on the first call for the types that come."""
    options: dict[str, Any] = {"nogil": True, "fastmath": _FAST, "error_model": "numpy"}
    try:
        return njit(cache=True, **options)(function)
    except RuntimeError:
        # numba found no folder to write to: a read-only installation without a home
        return njit(**options)(function)
