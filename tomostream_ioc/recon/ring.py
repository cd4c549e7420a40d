"""The circular buffer of one 180-degree interval: which frame is in which slot, at which angle."""

from __future__ import annotations

import numpy as np

from tomostream_ioc.recon.geometry import Views

#: a gap of so many usual ones is a part of the half turn that is not there (yet)
_MISSING_GAP = 4.0
#: weights are whole powers of this: encoder noise must not move back-projected frames, and what is
#: in the slices must depend on the angles that are there, not on those that were
_WEIGHT_STEP = 1.1
#: angles that differ by less than this part of an even step are the same: above what half turns
#: in doubles add up to, below what any encoder tells
_SAME_ANGLE = 1e-6


class Ring:
    """Bookkeeping only; raw and filtered pixels belong to the backend.

    A slot of the ring holds a raw frame. Its filtered frame is in a *place*; there are ``n_spare``
    more places than slots, so that a new frame is filtered into a free place while the one that it
    replaces is still there to be subtracted. ``stale`` slots have a raw frame that is newer than
    their filtered one. ``weights`` are the shares of the half turn with which the slots enter the
    slices, in units of an even step.
    """

    def __init__(self, n_slots: int, n_spare: int):
        self.n_slots = n_slots
        self.n_spare = n_spare
        self.clear()

    def clear(self) -> None:
        self.filled = np.zeros(self.n_slots, bool)
        self.stale = np.zeros(self.n_slots, bool)
        self.theta_rad = np.zeros(self.n_slots)
        self.weights = np.ones(self.n_slots)
        self.places = np.arange(self.n_slots)
        self._free = np.arange(self.n_slots, self.n_slots + self.n_spare)

    @property
    def n_places(self) -> int:
        return self.n_slots + self.n_spare

    @property
    def n_filled(self) -> int:
        return int(np.count_nonzero(self.filled))

    @property
    def total_weight(self) -> float:
        """The number of filled slots, if their angles are evenly spaced."""
        return float(self.weights[self.filled].sum())

    def lose_filtered(self, n_spare: int) -> None:
        """The filtered frames are gone, and from now on there are ``n_spare`` more places."""
        self.n_spare = n_spare
        self.places = np.arange(self.n_slots)
        self._free = np.arange(self.n_slots, self.n_places)
        self.stale[:] = True

    def free_places(self, k: int) -> np.ndarray:
        """k <= n_spare places that hold nothing that is needed."""
        return self._free[:k].copy()

    def views(self, slots: np.ndarray) -> Views:
        """The filtered frames of these slots, with their weights."""
        return Views.at(self.places[slots], self.theta_rad[slots], self.weights[slots])

    def filtered_views(self) -> Views:
        """All filtered frames that are up to date."""
        return self.views(np.flatnonzero(self.filled & ~self.stale))

    def stale_slots(self) -> np.ndarray:
        return np.flatnonzero(self.filled & self.stale)

    def put_raw(self, slots: np.ndarray, theta_rad: np.ndarray) -> Views:
        """Raw frames have come (or are about to); their filtered ones are stale from now on.

        Returns views that bring the sums over the other slots to the weights that these have now:
        the neighbours of a frame have another share of the half turn once it is there.
        """
        is_like_before = self._are_there(slots, theta_rad)
        self.theta_rad[slots] = theta_rad
        self.filled[slots] = True
        self.stale[slots] = True
        if is_like_before:  # and with it the shares, which take longest in a steady scan
            return self.views(slots[:0])
        filled = np.flatnonzero(self.filled)
        shares = angle_shares(self.theta_rad[filled], self.n_slots)
        rounded = rounded_weights(shares)
        moved = filled[(rounded != self.weights[filled]) & ~self.stale[filled]]
        before = self.weights[moved]
        self.weights[filled] = rounded
        return Views.at(self.places[moved], self.theta_rad[moved], self.weights[moved] - before)

    def _are_there(self, slots: np.ndarray, theta_rad: np.ndarray) -> bool:
        """Whether these slots hold frames of the same angles already, modulo 180 degrees."""
        if not self.filled[slots].all():
            return False
        moved = np.mod(theta_rad - self.theta_rad[slots] + np.pi / 2, np.pi) - np.pi / 2
        return bool(np.all(np.abs(moved) < _SAME_ANGLE * np.pi / self.n_slots))

    def put_filtered(self, slots: np.ndarray, places: np.ndarray | None = None) -> None:
        """The slots' filtered frames are up to date, in new ``places`` if given."""
        if places is not None:
            self._free = np.concatenate((self._free[len(places) :], self.places[slots]))
            self.places[slots] = places
        self.stale[slots] = False


def rounded_weights(shares: np.ndarray) -> np.ndarray:
    """Shares (k,) to the nearest whole power of _WEIGHT_STEP: 1 stays 1, also with some noise."""
    powers = np.log(np.maximum(shares, 1e-6)) / np.log(_WEIGHT_STEP)
    return _WEIGHT_STEP ** np.round(powers)


def angle_shares(theta_rad: np.ndarray, n_slots: int) -> np.ndarray:
    """Share of the half turn of each angle (k,), in units of pi / n_slots.

    Half the way to the neighbours on both sides, modulo 180 degrees. Parts of the half turn without
    any angle belong to nobody: they are missing, not spread out.
    """
    k = len(theta_rad)
    if k < 2:
        return np.ones(k)
    step = np.pi / n_slots
    folded = np.mod(theta_rad, np.pi)
    order = np.argsort(folded)
    after = np.diff(folded[order], append=folded[order[0]] + np.pi)  # gap behind each angle
    usual = np.sort(after)[(k - 1) // 2]
    if usual < 1e-3 * step:  # most angles are the same: there is nothing to share
        return np.ones(k)
    before = np.roll(after, 1)
    limit = _MISSING_GAP * usual
    left = np.where(before > limit, np.where(after > limit, usual, after), before)
    right = np.where(after > limit, np.where(before > limit, usual, before), after)
    shares = np.empty(k)
    shares[order] = (left + right) / (2 * step)
    return shares
