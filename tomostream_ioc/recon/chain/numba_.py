"""Filtering on the CPU: detector rows through one kernel, on threads."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tomostream_ioc.recon.chain import RING_SCALE
from tomostream_ioc.recon.filters import fft_length, response
from tomostream_ioc.recon.geometry import ScanGeometry
from tomostream_ioc.recon.kernels.fft import FftPlan
from tomostream_ioc.recon.kernels.frame import filter_rows, log_row
from tomostream_ioc.recon.phase import PhaseFilter
from tomostream_ioc.recon.preprocess import (
    TRANSMISSION_CEILING,
    TRANSMISSION_FLOOR,
    Normalisation,
)
from tomostream_ioc.recon.workers import Workers

if TYPE_CHECKING:
    from tomostream_ioc.recon.chain.numba_phase import NumbaPhase

#: rows of one piece of work: their dark and flat stay in the cache from frame to frame
_BLOCK_ROWS = 64


class NumbaFilterChain:
    """See FilterChain.

    ``raw`` (n_angles, n_rows, n_cols) in the detector's type; ``ring`` (places, n_cols, >= n_rows)
    uint16, the bits of float16.
    """

    def __init__(self, geometry: ScanGeometry, raw: np.ndarray, ring: np.ndarray, workers: Workers):
        self._n_rows = geometry.n_rows
        self._raw = raw
        self._ring = ring
        self._workers = workers
        self._plan = FftPlan.of_length(fft_length(geometry.n_cols))
        self._dezinger = 0
        self._phase: NumbaPhase | None = None

    def store_raw(self, frames: np.ndarray, slots: np.ndarray) -> None:
        def copy(item: tuple[np.ndarray, int]) -> None:
            frame, slot = item
            np.copyto(self._raw[slot], frame)

        pairs = list(zip(frames, slots.tolist(), strict=True))
        self._workers.map(copy, pairs, interruptible=False)  # half a frame would be no frame

    def taken(self) -> None:
        """`store_raw` has waited."""

    def set_fields(self, fields: Normalisation) -> None:
        self._fields = fields
        self._runs = (fields.runs_by_row(), fields.run_first, fields.run_end)

    def set_filter(self, filter_type: str) -> None:
        # minus: the logarithm of the transmission is -p
        self._response = self._plan.in_order(-RING_SCALE * response(filter_type, self._plan.n_fft))

    def set_dezinger(self, size: int) -> None:
        self._dezinger = size

    def set_phase(self, phase: PhaseFilter | None) -> None:
        self._phase = None  # its memory first
        if phase is not None:
            # its transforms take 0.2 s to import
            from tomostream_ioc.recon.chain.numba_phase import NumbaPhase

            self._phase = NumbaPhase(phase, self._workers, _BLOCK_ROWS)

    def filter(self, slots: np.ndarray, places: np.ndarray) -> int:
        if self._phase is not None:
            return self._filter_retrieved(self._phase, slots, places)
        plan = self._plan
        kernel_plan = (plan.radices, plan.lengths, plan.tables, plan.starts, plan.n_outer)

        def block(first: int) -> int:
            n_nan = 0
            for slot, place in zip(slots.tolist(), places.tolist(), strict=True):
                n_nan = filter_rows(
                    self._raw[slot],
                    self._fields.offset,
                    self._fields.gain,
                    (TRANSMISSION_FLOOR, TRANSMISSION_CEILING),
                    self._runs,
                    kernel_plan,
                    self._response,
                    self._dezinger,
                    self._ring[place],
                    first,
                    min(first + _BLOCK_ROWS, self._n_rows),
                )
            return n_nan

        return sum(self._workers.map(block, range(0, self._n_rows, _BLOCK_ROWS)))

    def _filter_retrieved(self, phase: NumbaPhase, slots: np.ndarray, places: np.ndarray) -> int:
        """As `filter`, frame by frame: each pixel of a retrieved frame depends on all raw ones."""
        plan = self._plan
        kernel_plan = (plan.radices, plan.lengths, plan.tables, plan.starts, plan.n_outer)
        n_nan = 0
        for slot, place in zip(slots.tolist(), places.tolist(), strict=True):
            self._workers.beat()
            n_nan = phase.begin(self._raw[slot], self._fields, self._runs, self._dezinger)

            def block(first: int, place: int = place) -> None:
                end = min(first + _BLOCK_ROWS, self._n_rows)
                phase.finish(first, end)
                filter_rows(
                    phase.retrieved,
                    phase.offset,
                    phase.gain,
                    (TRANSMISSION_FLOOR, TRANSMISSION_CEILING),
                    phase.runs,
                    kernel_plan,
                    self._response,
                    0,
                    self._ring[place],
                    first,
                    end,
                )

            self._workers.map(block, range(0, self._n_rows, _BLOCK_ROWS))
        return n_nan

    def line_integrals(self, slots: np.ndarray, row: int, dezinger: int) -> np.ndarray:
        logs = np.empty((len(slots), self._raw.shape[2]), np.float32)

        def some(first: int, end: int) -> None:
            for i in range(first, end):
                log_row(
                    self._raw[slots[i]],
                    row,
                    self._fields.offset,
                    self._fields.gain,
                    (TRANSMISSION_FLOOR, TRANSMISSION_CEILING),
                    self._runs,
                    dezinger,
                    logs[i : i + 1],
                )

        self._workers.split(len(slots), some)
        return np.negative(logs, out=logs)

    def release(self) -> None:
        self._raw = np.empty((0, 0, 0), self._raw.dtype)
        self._ring = np.empty((0, 0, 0), np.uint16)
        self._phase = None
