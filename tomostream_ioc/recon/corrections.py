"""What ring removal takes away of the slices: stripes, as frames that are back-projected too.

Ring removal is linear, so the ring of filtered frames stays as it is, and each frame enters the
slices less its stripes: filtered frames in a small ring of their own, subtracted at the frame's
angle and with its weight. A stripe is a ring only all around: at an angle and half a turn later it
is on opposite sides of the axis, and so stripes come and go with the frames.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable

import numpy as np

from tomostream_ioc.model.params import ReconParams
from tomostream_ioc.recon import stripes
from tomostream_ioc.recon.backproject import BackProjector
from tomostream_ioc.recon.chain import RING_SCALE, FilterChain
from tomostream_ioc.recon.filters import fft_length, response
from tomostream_ioc.recon.geometry import ScanGeometry
from tomostream_ioc.recon.ring import Ring
from tomostream_ioc.recon.slice_sums import SliceSums
from tomostream_ioc.recon.stripe_frames import StripeFrames

#: frames that go over to the newest estimate with each new frame, so that all have when the next
#: one is made. As few angles hold much of the sample, there are more estimates while the ring fills
_MOVES, _MOVES_WHILE_FILLING = 1, 4
#: rows of a sinogram that are filtered between two heartbeats
_ROWS = 64


class Corrections:
    """The stripes of the frames in the ring while ring removal is on.

    An *estimate* is the part of fw that is constant along the angle, of all detector rows, from
    the mean over the ring of the filtered frames, which `SliceSums` keeps. It leaves out the
    angular frequencies that are near but not 0, and looks for stripes behind the filter instead of
    before it. Vertical slices and a tilted z slice meet every detector row: theirs is this one,
    and so is that of a z slice with phase retrieval, which needs whole frames.

    The z slice has the whole of fw, from the sinogram of its row in the raw frames, for the frames
    that are in the ring when ring removal is switched on, or filter, dezinger, fields or row
    change. Frames that come later have the newest estimate; with each of them some of the others
    go over to it, so that the work is spread evenly and does not grow with the ring.
    """

    def __init__(self, geometry: ScanGeometry, chain: FilterChain, projector: BackProjector):
        self._geometry = geometry
        self._chain = chain
        self._projector = projector
        self.clear()

    def clear(self) -> None:
        """Forget everything and give the memory back."""
        self._of_mean: StripeFrames | None = None
        self._of_row: StripeFrames | None = None
        self._filtering: Hashable = None
        self._estimate = np.empty((0, 0), np.float32)  # (n_cols, n_rows)
        self._number = 0  # of the newest estimate
        self._n_estimated = 0  # frames that it was made of
        self._n_new = 0  # frames that came since
        self._n_due = 0  # frames that are to go over to it
        self._moves = _MOVES

    def assign(self, slots: np.ndarray) -> None:
        """New frames come into these slots of the ring: they have the newest estimate."""
        self._n_new += len(slots)
        self._n_due += len(slots) * self._moves
        for frames in self._all():
            frames.assign(slots, self._number)

    def bring_about(
        self,
        params: ReconParams,
        filtering: Hashable,
        ring: Ring,
        sums: SliceSums,
        heartbeat: Callable[[], None],
    ) -> None:
        """Subtract stripes from the sums as parameters and frames want it; put them back if off.

        ``filtering`` says how the ring was filtered; ring and sums are up to date with ``params``.
        Whatever ``heartbeat`` raises goes through; the next call does what was not finished.
        """
        if params.ring_removal == "None":
            if self._filtering is not None:
                self.clear()
            sums.subtract(params, {}, heartbeat)
            return
        if self._filtering != filtering:
            self.clear()
            self._filtering = filtering
        if self._of_mean is None:
            estimate = self._estimated(ring, sums, heartbeat)
            projector = self._projector.over(2, self._geometry.n_rows)
            of_mean = StripeFrames(projector, ring.n_slots, 0, None)
            self._take([of_mean], 0, estimate, ring)
            self._of_mean = of_mean
        if params.rot_z_deg or params.has_phase:
            self._of_row = None
        elif self._of_row is None or self._of_row.row != params.ortho_z:
            self._of_row = self._whole_sinogram(params, ring, heartbeat)
        for frames in self._all():  # frames that came or went
            sums.update_stripes(frames, frames.change(ring), heartbeat)
        of_z = self._of_row or self._of_mean
        sums.subtract(params, {"z": of_z, "y": self._of_mean, "x": self._of_mean}, heartbeat)
        self._renew(ring, sums, heartbeat)

    def _renew(self, ring: Ring, sums: SliceSums, heartbeat: Callable[[], None]) -> None:
        """Make the next estimate if it is time, and let as many frames go over as have to."""
        is_time = self._n_new * self._moves >= self._n_estimated
        if is_time and not any(len(self._older(ring, one)) for one in self._all()):
            estimate = self._estimated(ring, sums, heartbeat)
            # frames that are late have been without an estimate to go over to
            n_late = self._n_new * self._moves - self._n_estimated
            self._take(self._all(), self._number + 1, estimate, ring)
            self._n_due = n_late
        n_due = self._n_due
        for frames in self._all() if n_due else ():
            older = self._older(ring, frames)[:n_due]
            frames.assign(older, self._number)
            sums.update_stripes(frames, frames.change(ring), heartbeat)
        self._n_due = 0

    def _take(
        self, every: list[StripeFrames], number: int, estimate: np.ndarray, ring: Ring
    ) -> None:
        """An estimate was made of what is in the ring."""
        for frames in every:
            frames.put_estimate(number, estimate)
        self._number, self._estimate = number, estimate
        is_filling = self._n_estimated < ring.n_filled < ring.n_slots
        self._moves = _MOVES_WHILE_FILLING if is_filling else _MOVES
        self._n_estimated = ring.n_filled
        self._n_new = 0

    def _all(self) -> list[StripeFrames]:
        return [frames for frames in (self._of_row, self._of_mean) if frames is not None]

    def _older(self, ring: Ring, frames: StripeFrames) -> np.ndarray:
        """Slots whose stripes are older than the newest estimate."""
        slots = np.flatnonzero(ring.filled)
        return slots[frames.is_older(slots, self._number)]

    def _estimated(self, ring: Ring, sums: SliceSums, heartbeat: Callable[[], None]) -> np.ndarray:
        heartbeat()
        mean = sums.mean_frame(ring.total_weight)  # (n_rows, n_cols)
        return stripes.constant_stripes(mean, heartbeat=heartbeat).T  # (n_cols, n_rows)

    def _whole_sinogram(
        self, params: ReconParams, ring: Ring, heartbeat: Callable[[], None]
    ) -> StripeFrames:
        """Of detector row ortho_z, for each frame in the ring its own."""
        n_cols, row = self._geometry.n_cols, int(params.ortho_z)
        slots = np.flatnonzero(ring.filled)
        slots = slots[order_in_turn(ring.theta_rad[slots])]
        heartbeat()
        sinogram = self._chain.line_integrals(slots, row, params.dezinger)  # (k, n_cols)
        found = stripes.stripes(sinogram, heartbeat=heartbeat)
        n_own = len(slots)
        projector = self._projector.over(n_own + 2, 1)
        n_fft = fft_length(n_cols)
        factor = (RING_SCALE * response(params.filter_type, n_fft)).astype(found.dtype)
        for i in range(0, n_own, _ROWS):
            heartbeat()
            spectrum = np.fft.rfft(found[i : i + _ROWS], n_fft, axis=1) * factor
            filtered = np.fft.irfft(spectrum, n_fft, axis=1)[:, :n_cols]
            projector.put(i, filtered[..., None])  # (few, n_cols, 1)
        frames = StripeFrames(projector, ring.n_slots, n_own, row)
        frames.put_estimate(self._number, self._estimate)
        frames.assign_own(slots, self._number)
        return frames


def order_in_turn(theta_rad: np.ndarray) -> np.ndarray:
    """Indices that sort angles (k,) within the whole turn, from behind their widest gap.

    Stripes stay on their detector columns, while the sample's projection half a turn on is mirrored
    about the axis. Neighbours by the whole turn need no mirroring: a ring that holds the end of one
    half turn and the beginning of the next still is a sinogram without a break.
    """
    angle = np.mod(theta_rad, 2 * np.pi)
    order = np.argsort(angle, kind="stable")
    gaps = np.diff(angle[order], append=angle[order[0]] + 2 * np.pi)  # gap behind each angle
    return np.roll(order, -1 - int(np.argmax(gaps)))
