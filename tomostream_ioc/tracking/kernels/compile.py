"""How the kernels of peak finding are compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import njit


def kernel(function: Callable[..., Any]) -> Any:
    """Compile without the GIL; kept on disk where a folder can be written.

    Arithmetic stays as it is written, or the results would differ from trackpy's in the last bit.
    """
    return _compiled(function)


def reordering_kernel(function: Callable[..., Any]) -> Any:
    """A kernel whose sums may be taken in another order, so that they are taken in vectors."""
    return _compiled(function, fastmath={"reassoc", "nsz"})


def inlined(function: Callable[..., Any]) -> Any:
    """A function for use inside kernels only."""
    return njit(nogil=True, error_model="numpy", inline="always")(function)


def _compiled(function: Callable[..., Any], **options: Any) -> Any:
    options |= {"nogil": True, "error_model": "numpy"}
    try:
        return njit(cache=True, **options)(function)
    except RuntimeError:
        # numba found no folder to write to: a read-only installation without a home
        return njit(**options)(function)
