"""Bragg peaks, their tracks and crystal maps, on arrays and tables."""

from trackpy import locate

__all__ = ["locate"]
