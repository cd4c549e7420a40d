"""Filtered stripes, which of them each frame has, and what of them is in the sums."""

from __future__ import annotations

import numpy as np

from tomostream_ioc.recon.backproject import BackProjector
from tomostream_ioc.recon.geometry import Views
from tomostream_ioc.recon.ring import Ring


class StripeFrames:
    """Stripes in a small ring of their own, which ``projector`` reads.

    They are of detector row ``row``, or with None of all rows. In the small ring are ``n_own``
    stripes that belong to one frame each, and behind them the two newest estimates, which any
    number of frames share. Estimates are numbered from 0. Frames are named by their slot.
    """

    def __init__(self, projector: BackProjector, n_slots: int, n_own: int, row: int | None):
        self.projector = projector
        self.row = row
        self._n_own = n_own
        self._stripes = np.full(n_slots, n_own, np.int64)
        self._number = np.zeros(n_slots, np.int64)
        # as they are subtracted
        self._subtracted = self._stripes.copy()
        self._theta_rad = np.zeros(n_slots)
        self._weights = np.zeros(n_slots)

    def put_estimate(self, number: int, frame: np.ndarray) -> None:
        """Take an estimate (n_cols, n_rows of the detector); no frame may have the last but one."""
        rows = slice(None) if self.row is None else slice(self.row, self.row + 1)
        self.projector.put(self._n_own + number % 2, frame[None, :, rows])

    def assign(self, slots: np.ndarray, number: int) -> None:
        """The frames in these slots have this estimate from now on."""
        self._stripes[slots] = self._n_own + number % 2
        self._number[slots] = number

    def assign_own(self, slots: np.ndarray, number: int) -> None:
        """The frames in slots (k,) have the first k stripes, which are as new as this estimate."""
        self._stripes[slots] = np.arange(len(slots))
        self._number[slots] = number

    def is_older(self, slots: np.ndarray, number: int) -> np.ndarray:
        """Which of the frames in slots (k,) have stripes older than this estimate, (k,) bool."""
        return self._number[slots] < number

    def views(self) -> Views:
        """All that is subtracted, with negative weights; `change` brings it up to date."""
        return self._subtracted_views(np.flatnonzero(self._weights))

    def change(self, ring: Ring) -> Views:
        """What to add to the sums to subtract the stripes of the frames that are in the ring."""
        weights = np.where(ring.filled, ring.weights, 0.0)
        differs = (weights != self._weights) | (self._stripes != self._subtracted)
        differs |= ring.theta_rad != self._theta_rad
        slots = np.flatnonzero(differs & ((weights != 0.0) | (self._weights != 0.0)))
        before = self._subtracted_views(slots).negative()
        self._weights[slots] = weights[slots]
        self._theta_rad[slots] = ring.theta_rad[slots]
        self._subtracted[slots] = self._stripes[slots]
        both = before + self._subtracted_views(slots)
        return both[both.weights != 0.0]

    def _subtracted_views(self, slots: np.ndarray) -> Views:
        return Views.at(self._subtracted[slots], self._theta_rad[slots], -self._weights[slots])
