"""From raw frames to filtered ones: one interface, one file per library."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from tomostream_ioc.recon.phase import PhaseFilter
from tomostream_ioc.recon.preprocess import Normalisation

#: filtered frames are kept times this: float16 then has its full precision also for weak samples,
#: and nothing overflows (|filtered| <= |log TRANSMISSION_FLOOR| / 2 = 7 before)
RING_SCALE = 1024.0


class FilterChain(Protocol):
    """Owns the raw frames and fills the ring of filtered ones, which a BackProjector reads."""

    def store_raw(self, frames: np.ndarray, slots: np.ndarray) -> None:
        """Copy raw frames (k, n_rows, n_cols) into their slots (k,); see `taken`."""
        ...

    def taken(self) -> None:
        """Wait until the caller of `store_raw` may overwrite its frames."""
        ...

    def set_fields(self, fields: Normalisation) -> None: ...

    def set_filter(self, filter_type: str) -> None: ...

    def set_dezinger(self, size: int) -> None:
        """Median window in pixels, 0 for none."""
        ...

    def set_phase(self, phase: PhaseFilter | None) -> None:
        """Phase retrieval on the transmission, before the logarithm; None for none."""
        ...

    def filter(self, slots: np.ndarray, places: np.ndarray) -> int:
        """Filter the raw frames of slots (k,) into places (k,) of the ring.

        Returns the number of pixels of the last frame whose raw value is NaN or infinite (and that
        the fields did not rule out already).
        """
        ...

    def line_integrals(self, slots: np.ndarray, row: int, dezinger: int) -> np.ndarray:
        """Detector row ``row`` of the raw frames of slots (k,), before the filter: (k, n_cols).

        -log of the transmission, with a median window of ``dezinger`` pixels (0 for none) and
        unusable pixels bridged as in `filter`; float32 or float64. `set_fields` comes first.
        """
        ...

    def release(self) -> None: ...
