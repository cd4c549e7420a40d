"""How the Triton kernels are compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import triton


def kernel(function: Callable[..., Any]) -> Any:
    """Compile for the GPU (with TRITON_INTERPRET=1: interpret on the CPU).

    ``row`` is the one parameter that changes while frames stream: no variants of it are compiled.
    """
    return triton.jit(do_not_specialize=["row"])(function)


def inlined(function: Callable[..., Any]) -> Any:
    """A function for use inside kernels only."""
    return triton.jit(function)
