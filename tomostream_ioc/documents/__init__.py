"""Bluesky documents in and out: images to peaks, peaks to tracks, tracks to crystal maps.

The stages are bluesky callbacks: each takes documents, and passes a run of its own on to whoever
subscribed. `build_chain` joins them; `open_database` keeps what they find.
"""

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if find_spec("event_model") is None:  # its import would take half a second
    raise ImportError(
        "tomostream_ioc.documents needs bluesky's packages:"
        " run `pip install tomostream_ioc[bluesky]`."
    )

if TYPE_CHECKING:
    from tomostream_ioc.documents.counts import StageCounts
    from tomostream_ioc.documents.crystal_mapper import CrystalMapper
    from tomostream_ioc.documents.database import Database, open_database
    from tomostream_ioc.documents.image_files import ImageFiles
    from tomostream_ioc.documents.image_processor import ImageProcessor
    from tomostream_ioc.documents.peak_tracker import PeakTracker
    from tomostream_ioc.documents.pipeline import Pipeline, build_chain
    from tomostream_ioc.documents.read_back import read_maps, read_peaks, read_tracks
    from tomostream_ioc.documents.results import ImageResult, MapsResult, PeaksResult, TracksResult
    from tomostream_ioc.documents.track_linker import TrackLinker

__all__ = [
    "CrystalMapper",
    "Database",
    "ImageFiles",
    "ImageProcessor",
    "ImageResult",
    "MapsResult",
    "PeakTracker",
    "PeaksResult",
    "Pipeline",
    "StageCounts",
    "TrackLinker",
    "TracksResult",
    "build_chain",
    "open_database",
    "read_maps",
    "read_peaks",
    "read_tracks",
]

_MODULES = {
    "counts": ("StageCounts",),
    "crystal_mapper": ("CrystalMapper",),
    "database": ("Database", "open_database"),
    "image_files": ("ImageFiles",),
    "image_processor": ("ImageProcessor",),
    "peak_tracker": ("PeakTracker",),
    "pipeline": ("Pipeline", "build_chain"),
    "read_back": ("read_maps", "read_peaks", "read_tracks"),
    "results": ("ImageResult", "MapsResult", "PeaksResult", "TracksResult"),
    "track_linker": ("TrackLinker",),
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Each part when it is first asked for: the database alone takes seconds to load and to end."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
