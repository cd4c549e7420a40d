"""Filtered stripes beside the ring of filtered frames, and which of them each frame has."""

from __future__ import annotations

import numpy as np

from tomostream_ioc.recon.backproject import BackProjector
from tomostream_ioc.recon.geometry import Views


class StripeFrames:
    """Stripes in a small ring of their own, which ``projector`` reads.

    They are of detector row ``row``, or with None of all rows. In the small ring are ``n_own``
    stripes that belong to one frame each, and behind them the two newest estimates, which any
    number of frames share. Estimates are numbered from 0. Frames are named by their place in the
    ring of filtered frames, of ``n_places`` places.
    """

    def __init__(self, projector: BackProjector, n_places: int, n_own: int, row: int | None):
        self.projector = projector
        self.row = row
        self._n_own = n_own
        self._stripes = np.full(n_places, n_own, np.int64)
        self._number = np.zeros(n_places, np.int64)

    def put_estimate(self, number: int, frame: np.ndarray) -> None:
        """Take an estimate (n_cols, n_rows of the detector); no frame may have the last but one."""
        rows = slice(None) if self.row is None else slice(self.row, self.row + 1)
        self.projector.put(self._n_own + number % 2, frame[None, :, rows])

    def assign(self, places: np.ndarray, number: int) -> None:
        """The frames in these places have this estimate from now on."""
        self._stripes[places] = self._n_own + number % 2
        self._number[places] = number

    def assign_own(self, places: np.ndarray, number: int) -> None:
        """The frames in places (k,) have the first k stripes, which are as new as this estimate."""
        self._stripes[places] = np.arange(len(places))
        self._number[places] = number

    def is_older(self, places: np.ndarray, number: int) -> np.ndarray:
        """Which of the frames in places (k,) have stripes older than this estimate, (k,) bool."""
        return self._number[places] < number

    def views(self, views: Views) -> Views:
        """The stripes of these views of the ring, to be subtracted."""
        return Views(self._stripes[views.frames], views.cos, views.sin, -views.weights)
