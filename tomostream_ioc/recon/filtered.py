"""Where filtered frames come from: a ring that keeps them, or raw frames filtered as needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

import numpy as np

from tomostream_ioc.recon.chain import FilterChain
from tomostream_ioc.recon.geometry import Views
from tomostream_ioc.recon.ring import Ring


class FilteredFrames(Protocol):
    """The frames of a ring, filtered; the same sums over them whatever is kept in memory.

    Views that `replace` and `all` give are of places that hold until the next ones are asked for.
    An exception on the way leaves frames marked stale where they are, or nothing changed.
    """

    frames_at_once: int  # frames that are filtered between two heartbeats
    n_nan: int  # of the newest filtered frame, see FilterChain.filter

    def put_raw(self, frames: np.ndarray, theta_rad: np.ndarray, slots: np.ndarray) -> None:
        """Frames come that are filtered later, by `refresh` or `all`: they are stale."""
        ...

    def replace(
        self, frames: np.ndarray, theta_rad: np.ndarray, slots: np.ndarray
    ) -> Iterator[Views]:
        """At most frames_at_once frames come; no slot is stale.

        Gives what to add to the sums: new frames, those that they replace with negative weights,
        and changes of their neighbours' weights.
        """
        ...

    def refresh(self) -> None:
        """Filter what is stale and kept."""
        ...

    def all(self) -> Iterator[Views]:
        """Every frame, up to date; behind `refresh`."""
        ...


class _OfRing:
    """What the two kinds have in common: the ring, and how raw frames come into it."""

    def __init__(
        self,
        ring: Ring,
        chain: FilterChain,
        heartbeat: Callable[[], None],
        frames_at_once: int,
    ):
        self._ring = ring
        self._chain = chain
        self._heartbeat = heartbeat
        self.frames_at_once = frames_at_once
        self.n_nan = 0

    def put_raw(self, frames: np.ndarray, theta_rad: np.ndarray, slots: np.ndarray) -> None:
        self._ring.put_raw(slots, theta_rad)
        self._chain.store_raw(frames, slots)


class KeptFrames(_OfRing):
    """FilteredFrames in a ring with a place for each slot, and some to spare."""

    def __init__(
        self,
        ring: Ring,
        chain: FilterChain,
        heartbeat: Callable[[], None],
        frames_at_once: int,
        views_at_once: int,
    ):
        super().__init__(ring, chain, heartbeat, frames_at_once)
        self._views_at_once = views_at_once

    def replace(
        self, frames: np.ndarray, theta_rad: np.ndarray, slots: np.ndarray
    ) -> Iterator[Views]:
        ring = self._ring
        old = ring.views(slots[ring.filled[slots]]).negative()
        # stale until it is done: an exception on the way leaves a ring that is filtered anew
        neighbours = ring.put_raw(slots, theta_rad)
        self._chain.store_raw(frames, slots)
        places = ring.free_places(len(slots))
        self.n_nan = self._chain.filter(slots, places)
        ring.put_filtered(slots, places)
        yield old + neighbours + ring.views(slots)

    def refresh(self) -> None:
        stale = self._ring.stale_slots()
        for i in range(0, len(stale), self.frames_at_once):
            self._heartbeat()
            slots = stale[i : i + self.frames_at_once]
            self.n_nan = self._chain.filter(slots, self._ring.places[slots])
            self._ring.put_filtered(slots)

    def all(self) -> Iterator[Views]:
        every = self._ring.filtered_views()
        for i in range(0, len(every), self._views_at_once):
            yield every[i : i + self._views_at_once]


class ChunkedFrames(_OfRing):
    """FilteredFrames made from the raw ones whenever they are needed, ``n_places`` at a time.

    Nothing is kept of them: a slot is stale until it has once been part of the sums.
    """

    def __init__(
        self,
        ring: Ring,
        chain: FilterChain,
        heartbeat: Callable[[], None],
        frames_at_once: int,
        n_places: int,
    ):
        super().__init__(ring, chain, heartbeat, frames_at_once)
        self.n_places = n_places
        self._newest_nan = 0

    def replace(
        self, frames: np.ndarray, theta_rad: np.ndarray, slots: np.ndarray
    ) -> Iterator[Views]:
        ring = self._ring
        # the raw frames that are replaced must still be there when they are taken out
        yield from self._made(ring.views(slots[ring.filled[slots]]).negative())
        neighbours = ring.put_raw(slots, theta_rad)
        self._chain.store_raw(frames, slots)
        yield from self._made(neighbours)
        yield from self._made(ring.views(slots))
        self.n_nan = self._newest_nan
        ring.put_filtered(slots)

    def refresh(self) -> None:
        pass  # there is nothing that could be out of date

    def all(self) -> Iterator[Views]:
        filled = np.flatnonzero(self._ring.filled)
        stale = len(self._ring.stale_slots()) > 0
        yield from self._made(self._ring.views(filled))
        if stale:
            self.n_nan = self._newest_nan
        self._ring.put_filtered(filled)

    def _made(self, views: Views) -> Iterator[Views]:
        """Views of slots as views of places, a block of them at a time."""
        for i in range(0, len(views), self.n_places):
            block = views[i : i + self.n_places]
            places = np.arange(len(block))
            for k in range(0, len(block), self.frames_at_once):
                self._heartbeat()
                part = slice(k, k + self.frames_at_once)
                self._newest_nan = self._chain.filter(block.frames[part], places[part])
            yield Views(places, block.cos, block.sin, block.weights)
