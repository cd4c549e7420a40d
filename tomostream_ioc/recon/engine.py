"""OrthoEngine: raw frames in, three live orthogonal slices out, incrementally."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import TypeVar

import numpy as np

from tomostream_ioc.errors import EngineError
from tomostream_ioc.model.center import CenterEstimate
from tomostream_ioc.model.control import MemoryUse
from tomostream_ioc.model.frame import FRAME_DTYPES
from tomostream_ioc.model.params import ReconParams
from tomostream_ioc.model.slices import Slices
from tomostream_ioc.recon import memory
from tomostream_ioc.recon.backend import RawFrames, make_backend
from tomostream_ioc.recon.backproject import BackProjector
from tomostream_ioc.recon.center import CenterSearch, HalfTurn, rows_around
from tomostream_ioc.recon.chain import RING_SCALE, FilterChain
from tomostream_ioc.recon.corrections import Corrections
from tomostream_ioc.recon.devices import resolve_device
from tomostream_ioc.recon.filtered import ChunkedFrames, KeptFrames
from tomostream_ioc.recon.geometry import ScanGeometry
from tomostream_ioc.recon.phase import PhaseFilter
from tomostream_ioc.recon.policies import MemoryPolicies
from tomostream_ioc.recon.preprocess import Fields
from tomostream_ioc.recon.ring import Ring
from tomostream_ioc.recon.slice_sums import SliceSums

#: pixels that are filtered between two heartbeats
_PIXELS_AT_ONCE = {"cpu": 1 << 27, "cuda": 1 << 30}
#: what the ring was filtered with: filter, dezinger, version of the fields, phase retrieval
_FilterKey = tuple[str, int, int, PhaseFilter | None]
_Result = TypeVar("_Result")


class OrthoEngine:
    """Reconstructs three orthogonal slices from the frames of the last 180 degrees.

    One thread at a time may use it. ``dtype`` is the detector's pixel type and ``device`` auto,
    cpu, cuda or cuda:k. ``heartbeat`` is called at least about twice a second during long work
    and may raise: the call ends with that exception and the work is done again by the next
    `reconstruct`. ``library`` and ``compute`` choose the arithmetic, for tests: auto, numba, torch,
    triton; float32, float64.

    What lives where is decided from the sizes and the memory that is free, at most
    ``memory_limit`` bytes on the device that computes: see recon.memory.Policy, of which
    ``policy`` names one for tests. Where memory runs out later, the next policy is taken, once.

    Raises ValueError: ``dtype`` is no pixel type. ConfigError: no such device. ArmingError: not
    enough memory, with the bytes needed and free.
    """

    def __init__(
        self,
        geometry: ScanGeometry,
        dtype: str | np.dtype = "uint16",
        device: str = "auto",
        *,
        heartbeat: Callable[[], None] | None = None,
        library: str = "auto",
        compute: str = "float32",
        n_threads: int | None = None,
        memory_limit: int | None = None,
        policy: str = "auto",
    ):
        self._dtype = np.dtype(dtype)
        if self._dtype not in FRAME_DTYPES:
            raise ValueError(f"dtype {dtype!r} is no pixel type: use an integer or a float")
        if compute not in ("float32", "float64"):
            raise ValueError(f"compute {compute!r} does not exist: use float32 or float64")
        self.geometry = geometry
        self._heartbeat = heartbeat or (lambda: None)
        n_spare = memory.spare_frames(geometry)
        frame_pixels = geometry.n_rows * geometry.n_cols
        self._device = device = resolve_device(device)
        at_once = _PIXELS_AT_ONCE[device.partition(":")[0]]
        self._frames_at_once = min(n_spare, max(1, at_once // frame_pixels))
        ring_itemsize = 8 if compute == "float64" else 2
        self._policies = MemoryPolicies(
            geometry, self._dtype, device, ring_itemsize, memory_limit, policy
        )
        self._make_backend = partial(
            make_backend, geometry, self._dtype, device, library=library, compute=compute,
            heartbeat=self._heartbeat, n_threads=n_threads,
        )  # fmt: skip
        self._ring = Ring(geometry.n_angles, n_spare)
        self._policies.first(self._use)  # refuses what does not fit into memory
        # float32 does not hold every value of a 32-bit detector
        narrow = self._dtype.itemsize <= 2 or self._dtype == np.float32
        wide_work = compute == "float64" or not narrow
        self._fields = Fields(geometry, np.dtype("float64" if wide_work else "float32"))
        self._n_unusable = 0

    @property
    def n_filled(self) -> int:
        """Slots of the ring that hold a frame."""
        return self._ring.n_filled

    @property
    def has_flat(self) -> bool:
        """False while a uniform flat, taken from the first frames, stands in for the real one."""
        return self._fields.has_flat

    @property
    def bad_pixels(self) -> int:
        """Pixels that were replaced by their neighbours in the newest filtered frame.

        Those without a usable dark or flat value (NaN, infinite, flat not above dark, or less than
        a thousandth of the usual signal) and those whose raw value was NaN or infinite.
        """
        return self._n_unusable + self._filtered.n_nan

    @property
    def projector(self) -> BackProjector:
        """The arithmetic of back-projection alone, for benchmarks."""
        return self._backend.projector

    @property
    def chain(self) -> FilterChain:
        """The arithmetic of filtering alone, for benchmarks."""
        return self._chain

    @property
    def where(self) -> str:
        """What computes and where the ring lives, for the user."""
        return self._backend.where

    @property
    def memory(self) -> MemoryUse:
        """The memory policy in force, and what is set aside for it on the device that computes."""
        plan = self._policies.plan
        return MemoryUse(plan.policy.value, plan.on_device, self._policies.note)

    @staticmethod
    def bytes_needed(geometry: ScanGeometry, dtype: str | np.dtype, device: str = "cpu") -> int:
        """Memory that an engine would take, in bytes (on a GPU: raw frames included)."""
        return memory.bytes_needed(geometry, dtype, resolve_device(device)).total

    def set_dark(self, dark: np.ndarray) -> None:
        """Dark field (n_rows, n_cols); the next `reconstruct` filters the ring anew.

        Raises FieldError: wrong shape, or no finite value. The last good one then stays.
        """
        self._fields.set_dark(dark)

    def set_flat(self, flat: np.ndarray) -> None:
        """Flat field (n_rows, n_cols); the next `reconstruct` filters the ring anew.

        Raises FieldError: wrong shape, or no finite value. The last good one then stays.
        """
        self._fields.set_flat(flat)

    def push(self, frames: np.ndarray, theta_deg: np.ndarray, slots: np.ndarray) -> None:
        """Take raw frames (k, n_rows, n_cols) at angles (k,), in degrees, into ring slots (k,).

        The slices follow: what a slot held is subtracted and the new frame added. Of frames for the
        same slot the last wins.

        Raises ValueError: another shape or pixel type than the engine was made for, a slot that
        does not exist, an angle that is NaN or infinite. EngineError: out of memory.
        """
        frames, theta_rad, slots = self._checked(frames, theta_deg, slots)
        if len(slots):
            self._in_memory(lambda: self._push(frames, theta_rad, slots))

    def _push(self, frames: np.ndarray, theta_rad: np.ndarray, slots: np.ndarray) -> None:
        if not self._fields.ready:
            self._fields.stand_in(frames)
        size = self._filtered.frames_at_once
        try:
            for i in range(0, len(slots), size):
                part = slice(i, i + size)
                self._heartbeat()
                self._push_some(frames[part], theta_rad[part], slots[part])
        finally:
            self._chain.taken()

    def reconstruct(self, params: ReconParams) -> Slices:
        """The three slices of what is in the ring, float32, the caller's own.

        Costs little when only frames were pushed since the last call; a new centre or position is
        back-projected from the filtered ring, a new filter, dark, flat or phase retrieval filters
        the ring anew.

        Raises ParameterError: centre or slices outside the detector, or phase retrieval that
        averages over more than the frame. EngineError: no frame was pushed yet, or out of memory.
        """
        self.geometry.check(params)
        if not self.n_filled:
            raise EngineError("No frame has come yet: there is nothing to reconstruct")
        return self._in_memory(lambda: self._reconstruct(params))

    def _reconstruct(self, params: ReconParams) -> Slices:
        self._refilter(params)
        self._sums.rebuild(params, self._filtered.all, self._heartbeat)
        self._corrections.bring_about(params, self._key, self._ring, self._sums, self._heartbeat)
        self._heartbeat()
        return self._sums.output(math.pi / (self._ring.total_weight * RING_SCALE))

    def center_search(self, params: ReconParams) -> CenterSearch:
        """Begin to look for the axis of rotation in what is in the ring, around ortho_z.

        What the search needs is copied here; its steps can go on while frames are pushed. It has
        dark, flat and dezinger as the slices have them, and no phase retrieval: this leaves the
        axis where it is, and takes whole frames.

        Raises ParameterError: slices outside the detector. CenterError: too few angles or columns.
        EngineError: out of memory.
        """
        self.geometry.check(replace(params, center=0.0))  # the present one may be anything
        slots = np.flatnonzero(self._ring.filled)
        half_turn = HalfTurn.of(self._ring.theta_rad[slots])
        return self._in_memory(lambda: self._center_search(params, slots, half_turn))

    def _center_search(
        self, params: ReconParams, slots: np.ndarray, half_turn: HalfTurn
    ) -> CenterSearch:
        self._bring_fields()  # no frame is filtered

        def sinograms() -> Iterator[np.ndarray]:
            for row in rows_around(params.ortho_z, self.geometry.n_rows):
                self._heartbeat()
                frames = slots[half_turn.frames]
                yield self._chain.line_integrals(frames, row, params.dezinger)

        return CenterSearch.of(half_turn, sinograms(), params.center)

    def find_center(self, params: ReconParams) -> CenterEstimate:
        """The axis of rotation, at once; raises as `center_search`."""
        search = self.center_search(params)
        while (found := search.step()) is None:
            self._heartbeat()
        return found

    def reset(self) -> None:
        """Empty the ring; dark, flat and memory stay."""
        self._ring.clear()
        self._sums.invalidate()
        self._corrections.clear()
        self._fields.reset()
        self._filtered.n_nan = 0

    def release(self) -> None:
        """Give the memory back; the engine can't be used again."""
        self._ring.clear()
        self._corrections.clear()
        self._backend.release()
        self._sums.release()
        memory.give_back_unused(self._device)

    def _use(self, plan: memory.Plan, raw: RawFrames) -> None:
        """Go by this plan, with the raw frames of the one before; none are filtered yet."""
        backend = self._make_backend(plan=plan, raw=raw)
        self._sums = SliceSums(self.geometry, backend.projector)
        self._backend, self._chain = backend, backend.chain
        self._corrections = Corrections(self.geometry, self._chain, backend.projector)
        parts = self._ring, self._chain, self._heartbeat, self._frames_at_once
        if plan.policy is memory.Policy.CHUNKED:
            self._ring.lose_filtered(0)
            self._filtered = ChunkedFrames(*parts, plan.n_places)
        else:
            self._ring.lose_filtered(plan.n_places - self.geometry.n_angles)
            self._filtered = KeptFrames(*parts, backend.projector.views_at_once())
        self._key: _FilterKey | None = None
        self._fields_in_chain = -1

    def _in_memory(self, work: Callable[[], _Result]) -> _Result:
        """Do the work; where memory runs out, by a smaller policy, with the raw frames there are.

        Raises EngineError: there is none, or memory runs out again.
        """
        try:
            return work()
        except Exception as error:
            if not memory.is_out_of_memory(error):
                raise
            reason = str(error) or type(error).__name__
        # out here, as the exception's traceback holds on to arrays
        self._sums.release()
        self._policies.next(self._backend.release(), self._use, reason)
        return self._in_memory(work)

    def _push_some(self, frames: np.ndarray, theta_rad: np.ndarray, slots: np.ndarray) -> None:
        """At most frames_at_once frames, all slots different."""
        self._corrections.assign(slots)
        if not (self._is_live() and self._sums.any_valid):
            self._sums.invalidate()
            self._filtered.put_raw(frames, theta_rad, slots)
            return
        try:
            self._sums.update(self._filtered.replace(frames, theta_rad, slots))
        except Exception:
            # the sums are invalid now; the frames are taken all the same
            self._filtered.put_raw(frames, theta_rad, slots)
            raise

    def _is_live(self) -> bool:
        """True when the filtered ring is up to date, so that new frames can simply be added."""
        if self._key is None or self._key[2] != self._fields.version:
            return False
        return len(self._ring.stale_slots()) == 0

    def _refilter(self, params: ReconParams) -> None:
        """Bring the filtered ring up to date with params, fields and raw frames."""
        phase = PhaseFilter.of(params, self.geometry)
        key = (params.filter_type, params.dezinger, self._fields.version, phase)
        if key != self._key:
            self._key = None
            self._sums.invalidate()
            self._ring.stale[:] = True
            self._chain.set_filter(params.filter_type)
            self._chain.set_dezinger(params.dezinger)
            self._chain.set_phase(phase)
            self._bring_fields()
            self._key = key
        if len(self._ring.stale_slots()):
            self._sums.invalidate()
        self._filtered.refresh()

    def _bring_fields(self) -> None:
        """Give the chain the newest dark and flat; what was filtered with others stays stale."""
        if self._fields_in_chain != self._fields.version:
            normalisation = self._fields.normalisation()
            self._chain.set_fields(normalisation)
            self._n_unusable = normalisation.n_bad
            self._fields_in_chain = self._fields.version

    def _checked(
        self, frames: np.ndarray, theta_deg: np.ndarray, slots: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Frames, angles in radians and slots, each slot once; raises ValueError."""
        frames = np.asarray(frames)
        theta_rad = np.deg2rad(np.asarray(theta_deg, np.float64))
        slots = np.asarray(slots)
        shape = (self.geometry.n_rows, self.geometry.n_cols)
        if frames.ndim != 3 or frames.shape[1:] != shape:
            raise ValueError(
                f"frames have shape {frames.shape}, the engine is for (k, {shape[0]}, {shape[1]})"
            )
        if frames.dtype != self._dtype:
            raise ValueError(f"frames are {frames.dtype}, the engine is for {self._dtype}")
        k = len(frames)
        if theta_rad.shape != (k,) or slots.shape != (k,):
            raise ValueError(
                f"{k} frames need {k} angles and slots, not {theta_rad.shape} and {slots.shape}"
            )
        if k and slots.dtype.kind not in "ui":
            raise ValueError(f"slots are {slots.dtype}: must be integers")
        slots = slots.astype(np.int64)
        if k and not (slots.min() >= 0 and slots.max() < self.geometry.n_angles):
            raise ValueError(
                f"slots {slots.min()}..{slots.max()} are outside 0..{self.geometry.n_angles - 1}"
            )
        if not np.isfinite(theta_rad).all():
            raise ValueError("an angle is NaN or infinite")
        newest_first, index = np.unique(slots[::-1], return_index=True)
        if len(newest_first) < k:
            last = np.sort(k - 1 - index)
            return frames[last], theta_rad[last], slots[last]
        return frames, theta_rad, slots
