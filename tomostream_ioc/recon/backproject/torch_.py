"""Back-projection with torch: one code path for CUDA and, as the reference, for the CPU."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from tomostream_ioc.recon.geometry import PlaneLine, ScanGeometry, TiltedRows, Views
from tomostream_ioc.recon.kernels import LINE_MARGIN, SHARPENING, line_length

#: bytes of intermediate arrays that one step may take
_STEP_BYTES = {"cpu": 64 << 20, "cuda": 1 << 30}
_VIEWS = 64


class TorchBackProjector:
    """See BackProjector. ``ring`` (places, n_cols, n_rows) float16 or float64 on the device."""

    def __init__(self, geometry: ScanGeometry, ring: torch.Tensor, compute: torch.dtype):
        self._geometry = geometry
        self._ring = ring
        self._compute = compute
        self._device = ring.device
        self._step_bytes = _STEP_BYTES.get(ring.device.type, 64 << 20)

    def zeros(self, n_first: int, n_second: int) -> torch.Tensor:
        return torch.zeros(n_first, n_second, dtype=torch.float64, device=self._device)

    def clear(self, sums: torch.Tensor) -> None:
        sums.zero_()

    def views_at_once(self) -> int:
        return _VIEWS

    def add_z(self, sums: torch.Tensor, views: Views, row: int, center: float) -> None:
        flat = np.abs(views.cos) >= np.abs(views.sin)
        self._add_sheared(sums, views[flat], views.cos[flat], views.sin[flat], row, center)
        self._add_sheared(sums.T, views[~flat], -views.sin[~flat], -views.cos[~flat], row, center)

    def _add_sheared(
        self,
        sums: torch.Tensor,
        views: Views,
        step: np.ndarray,
        slope: np.ndarray,
        row: int,
        center: float,
    ) -> None:
        """sums[r, c] += q at u = step * (c - origin) - slope * (r - origin) + center, by shear."""
        n = self._geometry.n_cols
        r = np.arange(n) - float(self._geometry.origin)
        bytes_per_view = 4 * n * (n + 1) * self._compute.itemsize
        for part in self._parts(len(views), bytes_per_view):
            lines = self._lines(views[part], step[part], row, center)  # (k, 2n + ...)
            tan = slope[part] / step[part]
            start = n + LINE_MARGIN - self._geometry.origin - np.outer(tan, r)  # (k, n)
            index = np.floor(start).astype(np.int64)
            weight = self._tensor(start - index)[..., None]  # (k, n, 1)
            windows = lines.unfold(1, n + 1, 1)  # (k, n + ..., n + 1), no copy
            view_index = torch.arange(len(tan), device=self._device)[:, None]
            taps = windows[view_index, torch.from_numpy(index).to(self._device)]  # (k, n, n + 1)
            sums.add_(torch.lerp(taps[..., :-1], taps[..., 1:], weight).sum(0))

    def _lines(self, views: Views, step: np.ndarray, row: int, center: float) -> torch.Tensor:
        """Detector row ``row`` on the grid of each view, times its weight: kernels.shear."""
        n = self._geometry.n_cols
        raw = self._ring[self._index(views.frames), :, row].to(self._compute)  # (k, n)
        beside = torch.cat((raw[:, :1], raw, raw[:, -1:]), 1)  # (k, n + 2)
        bend = beside[:, :-2] - 2 * raw + beside[:, 2:]
        q = raw - self._tensor(SHARPENING * step**2)[:, None] * bend  # (k, n)
        m = np.arange(line_length(n)) - float(n + LINE_MARGIN)
        u = np.outer(step, m) + center  # (k, 2n + ...)
        s = np.clip(u.astype(np.int64), 0, n - 2)
        inside = self._tensor((u >= 0) & (u <= n - 1))
        w = self._tensor(u - s)
        s = torch.from_numpy(s).to(self._device)
        before, q0, q1, after = (
            q.gather(1, (s + shift).clamp(0, n - 1)) for shift in (-1, 0, 1, 2)
        )
        cubic = 3 * (q0 - q1) + after - before
        square = 2 * before - 5 * q0 + 4 * q1 - after
        line = q0 + 0.5 * w * (q1 - before + w * (square + w * cubic))
        return line * inside * self._tensor(views.weights)[:, None]

    def add_tilted_z(
        self, sums: torch.Tensor, views: Views, rows: TiltedRows, center: float
    ) -> None:
        n, n_rows = self._geometry.n_cols, self._geometry.n_rows
        y = np.arange(n) - float(self._geometry.origin)
        z0 = np.clip(np.floor(rows.row).astype(np.int64), 0, max(n_rows - 2, 0))
        wz = self._tensor(rows.row - z0)[:, None]  # (n, 1)
        seen = (rows.row >= 0) & (rows.row <= n_rows - 1)
        for frame, cos, sin, weight in zip(
            views.frames, views.cos, views.sin, views.weights, strict=True
        ):
            q = self._ring[int(frame)].T.to(self._compute)  # (n_rows, n)
            lower = q[self._index(z0)]
            upper = q[self._index(np.minimum(z0 + 1, n_rows - 1))]
            lines = torch.lerp(lower, upper, wz)  # (n, n): x, u
            u = np.add.outer(rows.x * cos, -y * sin) + center  # (n, n): x, y
            s = np.clip(np.floor(u).astype(np.int64), 0, n - 2)
            inside = (u >= 0) & (u <= n - 1) & seen[:, None]
            at = self._index(s)
            value = torch.lerp(lines.gather(1, at), lines.gather(1, at + 1), self._tensor(u - s))
            sums.add_(value * self._tensor(weight * inside))

    def add_vertical(
        self, sums: torch.Tensor, views: Views, line: PlaneLine, center: float
    ) -> None:
        n, n_rows = self._geometry.n_cols, self._geometry.n_rows
        table = self._ring.view(-1, n_rows)  # (places * n, n_rows)
        bytes_per_view = 3 * 2 * n * n_rows * self._compute.itemsize
        for part in self._parts(len(views), bytes_per_view):
            u = line.columns(views[part], center)  # (k, n)
            s = np.clip(np.floor(u).astype(np.int64), 0, n - 2)
            w = u - s
            weight = views.weights[part][:, None] * ((u >= 0) & (u <= n - 1))
            lower = views.frames[part][:, None] * n + s
            index = np.stack((lower, lower + 1), -1)  # (k, n, 2)
            weights = np.stack((weight * (1 - w), weight * w), -1)  # (k, n, 2)
            index = index.transpose(1, 0, 2).reshape(n, -1)  # (n, 2k)
            weights = weights.transpose(1, 0, 2).reshape(n, 1, -1)  # (n, 1, 2k)
            taps = table[self._index(index)].to(self._compute)  # (n, 2k, n_rows)
            sums.add_(torch.bmm(self._tensor(weights), taps)[:, 0])  # (n, n_rows)

    def add_frames(self, sums: torch.Tensor, views: Views) -> None:
        bytes_per_view = 2 * self._ring[0].numel() * self._compute.itemsize
        for part in self._parts(len(views), bytes_per_view):
            frames = self._ring[self._index(views.frames[part])]  # (k, n, n_rows)
            weights = self._tensor(views.weights[part])
            sums.add_(torch.tensordot(weights, frames.to(self._compute), 1))  # (n, n_rows)

    def over(self, n_places: int, n_rows: int) -> TorchBackProjector:
        ring = self._ring.new_zeros((n_places, self._geometry.n_cols, n_rows))
        return TorchBackProjector(replace(self._geometry, n_rows=n_rows), ring, self._compute)

    def put(self, first: int, frames: np.ndarray) -> None:
        self._ring[first : first + len(frames)].copy_(torch.from_numpy(frames))

    def output(self, sums: torch.Tensor, scale: float, transpose: bool) -> np.ndarray:
        result = (sums * scale).to(torch.float32)
        result = result.T if transpose else result
        return np.array(result.contiguous().cpu().numpy())

    def release(self) -> None:
        self._ring = self._ring.new_empty(0)

    def _parts(self, n_views: int, bytes_per_view: int) -> list[slice]:
        size = max(1, self._step_bytes // bytes_per_view)
        return [slice(i, i + size) for i in range(0, n_views, size)]

    def _tensor(self, values: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).to(self._device, self._compute)

    def _index(self, values: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).to(self._device)
