"""What each choice of Crystal:Source is, without bluesky's packages until they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tomostream_ioc.epics.pva_detector import PvaDetector
from tomostream_ioc.errors import ArmingError, ConfigError
from tomostream_ioc.model.crystal import PointSource

if TYPE_CHECKING:
    from tomostream_ioc.documents.transport.curve import CurveKeys


def point_sources(
    read_from: Sequence[Path], keys: CurveKeys | None
) -> dict[str, Callable[[], PointSource]]:
    """By the choice's name; see DocumentPoints for ``read_from`` and ``keys``."""
    return {"Detector": PvaDetector, "Documents": partial(_document_points, read_from, keys)}


def read_curve_keys(folder: Path) -> CurveKeys:
    """Those of a client, which can be read now. Raises ConfigError."""
    try:
        from tomostream_ioc.documents.transport.curve import CurveKeys
    except ImportError as error:
        raise ConfigError(f"--curve-keys: {error}") from error
    keys = CurveKeys(folder)
    keys.check(binds=False)
    return keys


def _document_points(read_from: Sequence[Path], keys: CurveKeys | None) -> PointSource:
    """Raises ArmingError: bluesky's packages are not installed."""
    try:
        # they are an extra, and their import takes a second
        from tomostream_ioc.documents.live_points import DocumentPoints
    except ImportError as error:
        raise ArmingError(str(error)) from error
    return DocumentPoints(read_from, keys)
