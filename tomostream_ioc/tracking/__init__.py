"""Bragg peaks, their tracks and crystal maps, on arrays and tables."""

from tomostream_ioc.tracking.background import (
    BackgroundSubtractor,
    average_frames,
    subtract_background,
)
from tomostream_ioc.tracking.grid import ScanGrid
from tomostream_ioc.tracking.linking import LinkCounts, OnlineLinker, link, link_and_count
from tomostream_ioc.tracking.locator import LocateCounts, Locator, locate
from tomostream_ioc.tracking.maps import CrystalMaps, MapStack, track_maps
from tomostream_ioc.tracking.pixel_mask import hot_pixels
from tomostream_ioc.tracking.windows import ExtremeImages, WindowMaps, window_maps

__all__ = [
    "BackgroundSubtractor",
    "CrystalMaps",
    "ExtremeImages",
    "LinkCounts",
    "LocateCounts",
    "Locator",
    "MapStack",
    "OnlineLinker",
    "ScanGrid",
    "WindowMaps",
    "average_frames",
    "hot_pixels",
    "link",
    "link_and_count",
    "locate",
    "subtract_background",
    "track_maps",
    "window_maps",
]
