"""The circular buffer of one 180-degree interval: which frame is in which slot, at which angle."""

from __future__ import annotations

import numpy as np

from tomostream_ioc.recon.geometry import Views


class Ring:
    """Bookkeeping only; raw and filtered pixels belong to the backend.

    A slot of the ring holds a raw frame. Its filtered frame is in a *place*; there are ``n_spare``
    more places than slots, so that a new frame is filtered into a free place while the one that it
    replaces is still there to be subtracted. ``stale`` slots have a raw frame that is newer than
    their filtered one.
    """

    def __init__(self, n_slots: int, n_spare: int):
        self.n_slots = n_slots
        self.n_spare = n_spare
        self.clear()

    def clear(self) -> None:
        self.filled = np.zeros(self.n_slots, bool)
        self.stale = np.zeros(self.n_slots, bool)
        self.theta_rad = np.zeros(self.n_slots)
        self.places = np.arange(self.n_slots)
        self._free = np.arange(self.n_slots, self.n_slots + self.n_spare)

    @property
    def n_places(self) -> int:
        return self.n_slots + self.n_spare

    @property
    def n_filled(self) -> int:
        return int(np.count_nonzero(self.filled))

    def free_places(self, k: int) -> np.ndarray:
        """k <= n_spare places that hold nothing that is needed."""
        return self._free[:k].copy()

    def views(self, slots: np.ndarray) -> Views:
        """The filtered frames of these slots."""
        return Views.at(self.places[slots], self.theta_rad[slots])

    def filtered_views(self) -> Views:
        """All filtered frames that are up to date."""
        return self.views(np.flatnonzero(self.filled & ~self.stale))

    def stale_slots(self) -> np.ndarray:
        return np.flatnonzero(self.filled & self.stale)

    def put_raw(self, slots: np.ndarray, theta_rad: np.ndarray) -> None:
        """Raw frames have come (or are about to); their filtered ones are stale from now on."""
        self.theta_rad[slots] = theta_rad
        self.filled[slots] = True
        self.stale[slots] = True

    def put_filtered(self, slots: np.ndarray, places: np.ndarray | None = None) -> None:
        """The slots' filtered frames are up to date, in new ``places`` if given."""
        if places is not None:
            self._free = np.concatenate((self._free[len(places) :], self.places[slots]))
            self.places[slots] = places
        self.stale[slots] = False
