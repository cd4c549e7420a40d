"""Bragg peaks, their tracks and crystal maps, on arrays and tables."""

from tomostream_ioc.tracking.locator import LocateCounts, Locator, locate
from tomostream_ioc.tracking.pixel_mask import hot_pixels

__all__ = ["LocateCounts", "Locator", "hot_pixels", "locate"]
