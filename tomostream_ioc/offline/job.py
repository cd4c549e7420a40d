"""Reconstructs the wanted slices of a scan file, block of rows by block of rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from tomostream_ioc.errors import ConfigError
from tomostream_ioc.model.center import CenterEstimate
from tomostream_ioc.model.params import ReconParams
from tomostream_ioc.offline.plan import Block, Wanted, blocks
from tomostream_ioc.recon.engine import OrthoEngine
from tomostream_ioc.recon.geometry import ScanGeometry
from tomostream_ioc.recon.preprocess import Fields
from tomostream_ioc.scan_file import ScanFile

#: rows that the median of the dezinger looks at, above and below
_DEZINGER_ROWS = 2
_BATCH_BYTES = 64 << 20
#: rows around the middle one in which the axis is searched
_CENTER_ROWS = 16

#: called with the number of projections that were taken
Progress = Callable[[int], object]


@dataclass(frozen=True, slots=True)
class FileSlices:
    """Slices in the order of ``wanted``, linear attenuation per pixel, float32.

    ``z`` (k, n_cols, n_cols), ``y`` and ``x`` (k, n_rows, n_cols); ``params`` with the centre that
    was used.
    """

    wanted: Wanted
    params: ReconParams
    z: np.ndarray
    y: np.ndarray
    x: np.ndarray


class FileReconstruction:
    """The engine on a file. Every projection has a slot of its own, also those past 180 degrees.

    ``memory_bytes`` is what an engine may take.
    """

    def __init__(self, scan: ScanFile, device: str, memory_bytes: int):
        self._scan = scan
        self._device = device
        self._dark = scan.dark.astype(np.float64).mean(0)
        self._flat = scan.flat.astype(np.float64).mean(0)
        self._most_rows = self._rows_in(memory_bytes)

    @property
    def n_unusable(self) -> int:
        """Pixels whose dark and flat field can't be used."""
        geometry = ScanGeometry(self._scan.n_projections, *self._scan.shape)
        fields = Fields(geometry, np.dtype(np.float32))
        fields.set_dark(self._dark)
        fields.set_flat(self._flat)
        return fields.normalisation().n_bad

    def plan(self, wanted: Wanted, params: ReconParams) -> list[Block]:
        """What has to be read, in this order. Raises ConfigError: too little memory."""
        whole = params.rot_z_deg != 0 or params.has_phase
        margin = _DEZINGER_ROWS if params.dezinger else 0
        return blocks(wanted, self._scan.shape[0], self._most_rows, margin, whole)

    def find_center(self, params: ReconParams, row: int, progress: Progress) -> CenterEstimate:
        """The axis as `OrthoEngine.find_center` finds it, around detector row ``row``.

        Raises CenterError: too few angles or columns.
        """
        n_rows = self._scan.shape[0]
        half = min(_CENTER_ROWS, self._most_rows) // 2
        first, end = max(row - half, 0), min(row + half + 1, n_rows)
        engine = self._filled(Block(first, end, first, end), progress)
        try:
            return engine.find_center(replace(params, ortho_z=row - first))
        finally:
            engine.release()

    def slices(
        self, wanted: Wanted, params: ReconParams, plan: list[Block], progress: Progress
    ) -> FileSlices:
        """Everything wanted, at the centre of ``params``."""
        n_rows, n = self._scan.shape
        result = FileSlices(
            wanted,
            params,
            np.zeros((len(wanted.z), n, n), np.float32),
            np.zeros((len(wanted.y), n_rows, n), np.float32),
            np.zeros((len(wanted.x), n_rows, n), np.float32),
        )
        for block in plan:
            engine = self._filled(block, progress)
            try:
                self._take(engine, block, result)
            finally:
                engine.release()
        return result

    def _filled(self, block: Block, progress: Progress) -> OrthoEngine:
        """An engine that holds these rows of all projections."""
        scan = self._scan
        rows = slice(block.first, block.end)
        n_angles, n_cols = scan.n_projections, scan.shape[1]
        engine = OrthoEngine(
            ScanGeometry(n_angles, block.n_rows, n_cols), scan.dtype, device=self._device
        )
        try:
            engine.set_dark(self._dark[rows])
            engine.set_flat(self._flat[rows])
            frame_bytes = block.n_rows * n_cols * scan.dtype.itemsize
            batch = max(1, min(64, _BATCH_BYTES // frame_bytes))
            for first in range(0, n_angles, batch):
                slots = np.arange(first, min(first + batch, n_angles))
                part = slice(first, first + len(slots))
                engine.push(scan.rows(part, rows), scan.theta_deg[part], slots)
                progress(len(slots))
        except BaseException:
            engine.release()
            raise
        return engine

    def _take(self, engine: OrthoEngine, block: Block, result: FileSlices) -> None:
        """Copy what this block has of the wanted slices; each call of the engine gives three."""
        wanted, n_cols = result.wanted, self._scan.shape[1]
        here = [z for z in wanted.z if block.core_first <= z < block.core_end]
        shown = slice(block.core_first, block.core_end)
        core = slice(block.core_first - block.first, block.core_end - block.first)
        middle = n_cols // 2
        for i in range(max(len(here), len(wanted.y), len(wanted.x))):
            z = here[i] - block.first if i < len(here) else core.start
            y = wanted.y[i] if i < len(wanted.y) else middle
            x = wanted.x[i] if i < len(wanted.x) else middle
            slices = engine.reconstruct(replace(result.params, ortho_z=z, ortho_y=y, ortho_x=x))
            if i < len(here):
                result.z[wanted.z.index(here[i])] = slices.z
            if i < len(wanted.y):
                result.y[i, shown] = slices.y[core]
            if i < len(wanted.x):
                result.x[i, shown] = slices.x[core]

    def _rows_in(self, memory_bytes: int) -> int:
        """The most rows of which an engine fits."""
        n_angles, (n_rows, n_cols) = self._scan.n_projections, self._scan.shape

        def needed(rows: int) -> int:
            geometry = ScanGeometry(n_angles, rows, n_cols)
            return OrthoEngine.bytes_needed(geometry, self._scan.dtype, self._device)

        if needed(1) > memory_bytes:
            raise ConfigError(
                f"one row of this scan needs {needed(1) / 2**20:.0f} MiB, "
                f"{memory_bytes / 2**20:.0f} MiB may be used: give a larger --memory-limit"
            )
        low, high = 1, n_rows
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if needed(middle) <= memory_bytes else (low, middle - 1)
        return low
