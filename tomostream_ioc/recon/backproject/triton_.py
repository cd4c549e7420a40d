"""Back-projection on the GPU: Triton kernels, launched without waiting for them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from tomostream_ioc.recon.backproject.torch_ import TorchBackProjector
from tomostream_ioc.recon.geometry import PlaneLine, ScanGeometry, TiltedRows, Views
from tomostream_ioc.recon.gpu import project
from tomostream_ioc.recon.gpu.project import MOST_LINES, MOST_VIEWS, UNROLL
from tomostream_ioc.recon.gpu.queue import Numbers, on_device
from tomostream_ioc.recon.kernels import line_length

#: views whose tangents differ by less share a line: rounding only, 1e-8 pixels at most
_SAME_TAN = 1e-11
#: planes whose numbers stay on the device
_PLANES = 8


@dataclass(frozen=True, slots=True)
class Tiles:
    """Sizes of tiles, powers of two, and warps per tile: rows x columns of the z slice, points x
    detector rows of a vertical one, x times y of a tilted one, samples of a line.
    """

    z: tuple[int, int, int] = (8, 512, 4)
    vertical: tuple[int, int, int] = (16, 256, 4)
    tilted: tuple[int, int, int] = (16, 32, 4)
    line: tuple[int, int] = (256, 4)


class TritonBackProjector(TorchBackProjector):
    """See BackProjector; what has no kernel here is done by torch.

    ``ring`` (places, n_cols, n_rows) float16 on the device; its columns may be further apart than
    n_rows. Sums are float64 in memory, and float32 over the views of a batch inside a tile.
    """

    def __init__(self, geometry: ScanGeometry, ring: torch.Tensor, tiles: Tiles | None = None):
        super().__init__(geometry, ring, torch.float32)
        self._tiles = tiles or Tiles()
        self._pitch = ring.stride(1)
        self._length = line_length(geometry.n_cols)
        # tiles that reach beyond the slice read before the first line and behind the last one
        rows, cols, _ = self._tiles.z
        buffer = torch.zeros(
            2 * rows + cols + MOST_LINES * self._length, dtype=torch.float32, device=self._device
        )
        self._resampled = buffer[rows:]
        self._numbers = Numbers(project.N_NUMBERS, torch.float64, self._device)
        self._sent: tuple[Views, float] | None = None
        self._n_lines = 0
        self._planes: OrderedDict[PlaneLine | TiltedRows, tuple[torch.Tensor, ...]] = OrderedDict()

    def views_at_once(self) -> int:
        return MOST_VIEWS

    def add_z(self, sums: torch.Tensor, views: Views, row: int, center: float) -> None:
        n = self._geometry.n_cols
        rows, cols, warps = self._tiles.z
        block, line_warps = self._tiles.line
        tiles = (_blocks(n, cols), _blocks(n, rows))
        with on_device(self._device):
            for numbers in self._batches(views, center):
                project.resample[self._n_lines, _blocks(self._length, block)](
                    self._ring, numbers, self._resampled, row,
                    n, self._pitch, self._length, block, num_warps=line_warps,
                )  # fmt: skip
                for steep in (False, True):
                    project.add_lines[tiles](
                        self._resampled, numbers, sums,
                        n, self._length, self._geometry.origin, steep,
                        rows, cols, UNROLL, num_warps=warps,
                    )  # fmt: skip

    def add_tilted_z(
        self, sums: torch.Tensor, views: Views, rows: TiltedRows, center: float
    ) -> None:
        n, n_rows = self._geometry.n_cols, self._geometry.n_rows
        xs, ys, warps = self._tiles.tilted
        with on_device(self._device):
            plane = self._plane(rows, lambda: self._tilted_numbers(rows))
            for numbers in self._batches(views, center):
                project.add_tilted[_blocks(n, ys), _blocks(n, xs)](
                    self._ring, numbers, *plane, sums,
                    n, self._pitch, n_rows, self._geometry.origin, xs, ys, num_warps=warps,
                )  # fmt: skip

    def add_vertical(
        self, sums: torch.Tensor, views: Views, line: PlaneLine, center: float
    ) -> None:
        n, n_rows = self._geometry.n_cols, self._geometry.n_rows
        points, rows, warps = self._tiles.vertical
        while rows >= 2 * n_rows and rows > 16:
            rows //= 2
        with on_device(self._device):
            (plane,) = self._plane(line, lambda: (self._tensor64(_ends(line.x), _ends(line.y)),))
            for numbers in self._batches(views, center):
                project.add_vertical[_blocks(n_rows, rows), _blocks(n, points)](
                    self._ring, numbers, plane, sums,
                    n, self._pitch, n_rows, points, rows, UNROLL, num_warps=warps,
                )  # fmt: skip

    def output(self, sums: torch.Tensor, scale: float, transpose: bool) -> np.ndarray:
        with on_device(self._device):
            result = sums.T if transpose else sums
            # pinned memory, which the array keeps: a copy at full speed, and no other one
            out = torch.empty(
                result.shape, dtype=torch.float32, pin_memory=self._device.type == "cuda"
            )
            out.copy_(torch.mul(result, scale).to(torch.float32, copy=True).contiguous())
            return out.numpy()

    def warm_up(self) -> None:
        """Compile the kernels for this geometry."""
        n, n_rows = self._geometry.n_cols, self._geometry.n_rows
        along = np.arange(float(n))
        views = Views.at(np.zeros(2, np.int64), np.array([0.0, 1.5]), 0.0)
        sums = self.zeros(n, n)
        self.add_z(sums, views, 0, 0.0)
        self.add_tilted_z(sums, views, TiltedRows(along, 0.0 * along), 0.0)
        self.add_vertical(self.zeros(n, n_rows), views, PlaneLine(along, along), 0.0)
        self._planes.clear()

    def release(self) -> None:
        super().release()
        self._resampled = self._resampled.new_empty(0)
        self._planes.clear()
        self._sent = None

    def _batches(self, views: Views, center: float) -> Iterator[torch.Tensor]:
        """The numbers of at most MOST_VIEWS views, on the device; the same views are sent once."""
        if len(views) <= MOST_VIEWS:
            if len(views) and (self._sent is None or self._sent != (views, center)):
                self._send(views, center)
            if len(views):
                yield self._numbers.on_device
            return
        for i in range(0, len(views), MOST_VIEWS):
            self._send(views[i : i + MOST_VIEWS], center)
            yield self._numbers.on_device

    def _send(self, views: Views, center: float) -> None:
        self._sent = None
        self._n_lines = fill_numbers(self._numbers.host(), views, center)
        self._numbers.send()
        self._sent = (views, center)

    def _plane(
        self, key: PlaneLine | TiltedRows, numbers: Callable[[], tuple[torch.Tensor, ...]]
    ) -> tuple[torch.Tensor, ...]:
        """Numbers of a plane on the device, sent when it is new."""
        if key not in self._planes:
            if len(self._planes) >= _PLANES:
                self._planes.popitem(last=False)
            self._planes[key] = numbers()
        return self._planes[key]

    def _tilted_numbers(self, rows: TiltedRows) -> tuple[torch.Tensor, ...]:
        n_rows = self._geometry.n_rows
        inside = (rows.row >= 0) & (rows.row <= n_rows - 1)
        z0 = np.where(inside, np.clip(np.floor(rows.row), 0, max(n_rows - 2, 0)), 0)
        w = rows.row - z0
        lower, upper = np.where(inside, 1.0 - w, 0.0), np.where(inside, w, 0.0)
        return (
            self._tensor64(_ends(rows.x)),
            self._index(z0.astype(np.int32)),
            self._tensor(lower),
            self._tensor(upper),
        )

    def _tensor64(self, *first_and_step: tuple[float, float]) -> torch.Tensor:
        """Firsts, then steps, of evenly spaced numbers."""
        values = np.array(first_and_step).T.reshape(-1)
        return torch.from_numpy(values).to(self._device)


def fill_numbers(out: np.ndarray, views: Views, center: float) -> int:
    """Write a batch of at most MOST_VIEWS views into ``out``, see gpu.project; returns the lines.

    Views are put in the order of their lines. Those at the same tangent (a frame and the one half
    a turn later) share one. Views and both kinds of lines are filled up to multiples of UNROLL by
    views without weight and lines without views.
    """
    k = len(views)
    steep = np.abs(views.cos) < np.abs(views.sin)
    over, under = np.where(steep, (views.cos, views.sin), (views.sin, views.cos))
    tan = over / under
    order = np.lexsort((tan, steep))
    tan, steep = tan[order], steep[order]
    cos, sin = views.cos[order], views.sin[order]
    new = np.empty(k, bool)
    new[0] = True
    new[1:] = (np.diff(tan) > _SAME_TAN) | (steep[1:] != steep[:-1])
    first_view = np.flatnonzero(new)  # (lines,)
    n_flat = int(np.count_nonzero(~steep[first_view]))
    n_views_flat = int(np.count_nonzero(~steep))
    lines_flat, n_lines = _padded(n_flat), _padded(n_flat) + _padded(len(first_view) - n_flat)
    out[: project.HEADER] = 0.0
    out[:4] = center, _padded(k), lines_flat, n_lines
    for begin, values in (
        (project.PLACES, views.frames[order]), (project.COS, cos), (project.SIN, sin),
        (project.WEIGHTS, views.weights[order]), (project.STEPS, np.where(steep, -sin, cos)),
    ):  # fmt: skip
        out[begin : begin + k] = values
        # the first place again: there is a frame, elsewhere there may be anything
        out[begin + k : begin + _padded(k)] = values[0] if begin == project.PLACES else 0.0
    tans = out[project.TANS : project.TANS + MOST_LINES]
    firsts = out[project.FIRST_VIEWS : project.FIRST_VIEWS + MOST_LINES + 1]
    tans[:n_lines], firsts[: n_lines + 1] = 0.0, k
    tans[:n_flat], firsts[:n_flat] = tan[first_view[:n_flat]], first_view[:n_flat]
    firsts[n_flat:lines_flat] = n_views_flat
    n_steep = len(first_view) - n_flat
    tans[lines_flat : lines_flat + n_steep] = tan[first_view[n_flat:]]
    firsts[lines_flat : lines_flat + n_steep] = first_view[n_flat:]
    return n_lines


def _ends(values: np.ndarray) -> tuple[float, float]:
    """First of evenly spaced values (n,), and their step."""
    return float(values[0]), float(values[-1] - values[0]) / (len(values) - 1)


def _padded(n: int) -> int:
    return -(-n // UNROLL) * UNROLL


def _blocks(n: int, size: int) -> int:
    return -(-n // size)
