"""What the Triton kernels compute, by torch on the CPU; `interpreted_kernels` compares them.

Each takes the last number of the grid and the kernel's arguments by name.
"""
# ruff: noqa: N803  names of the kernels

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from tomostream_ioc.recon.backproject.torch_ import TorchBackProjector
from tomostream_ioc.recon.chain.torch_ import bridged, to_float, without_zingers
from tomostream_ioc.recon.geometry import PlaneLine, ScanGeometry, TiltedRows, Views
from tomostream_ioc.recon.gpu import project
from tomostream_ioc.recon.kernels import LINE_MARGIN
from tomostream_ioc.recon.preprocess import TRANSMISSION_CEILING, TRANSMISSION_FLOOR


def log_transmission(
    k: int, *, raw: torch.Tensor, slots: torch.Tensor, offset: torch.Tensor, gain: torch.Tensor,
    values: torch.Tensor, n_bad: torch.Tensor, n_lost: torch.Tensor, N: int, N_ROWS: int,
    UNSIGNED: int, DEZINGER: int, MARK: bool, **_: Any,
) -> None:  # fmt: skip
    pixels = to_float(raw[slots[:k]], f"uint{UNSIGNED}", offset.dtype)  # (k, n_rows, n_cols)
    if DEZINGER:
        pixels = without_zingers(pixels, DEZINGER)
    ratio = (pixels - offset) * gain
    logs = ratio.nan_to_num(1.0).clamp(TRANSMISSION_FLOOR, TRANSMISSION_CEILING).float().log()
    if MARK:
        lost = ~ratio.isfinite() & (gain != 0)
        bad = lost | (gain == 0)
        logs[bad] = torch.nan
        n_bad[:k], n_lost[:k] = bad.sum(2), lost.sum(2)
    for r in range(2 * -(-N_ROWS // 2)):
        values[:k, r // 2, :N, r % 2] = logs[:, r] if r < N_ROWS else 0.0


def bridge(
    k: int, *, values: torch.Tensor, n_bad: torch.Tensor, N: int, N_ROWS: int, **_: Any
) -> None:
    for f in range(k):
        for r in range(N_ROWS):
            row = values[f, r // 2, :N, r % 2]
            if n_bad[f, r] > 0:
                row.copy_(bridged(row, row.isnan()))


def multiply(k: int, *, spectrum: torch.Tensor, response: torch.Tensor, **_: Any) -> None:
    spectrum *= response[:, None]


def store(
    k: int, *, values: torch.Tensor, places: torch.Tensor, ring: torch.Tensor, N: int, N_ROWS: int,
    **_: Any,
) -> None:  # fmt: skip
    for r in range(N_ROWS):
        ring[places[:k], :, r] = values[:k, r // 2, :N, r % 2].half()


def _views(numbers: np.ndarray) -> Views:
    k = int(numbers[1])
    parts = (project.PLACES, project.COS, project.SIN, project.WEIGHTS)
    place, cos, sin, weight = (numbers[begin : begin + k] for begin in parts)
    return Views(place.astype(np.int64), cos, sin, weight)


def _projector(ring: torch.Tensor) -> TorchBackProjector:
    _, n, n_rows = ring.shape
    return TorchBackProjector(ScanGeometry(1, n_rows, n), ring.contiguous(), torch.float32)


def resample(
    k: int, *, ring: torch.Tensor, numbers: torch.Tensor, lines: torch.Tensor, row: int,
    LENGTH: int, **_: Any,
) -> None:  # fmt: skip
    sent = numbers.numpy()
    views = _views(sent)
    steps = sent[project.STEPS : project.STEPS + len(views)]
    of_views = _projector(ring)._lines(views, steps, row, float(sent[0]))
    firsts = sent[project.FIRST_VIEWS :].astype(int)
    for i in range(int(sent[3])):
        lines[i * LENGTH : (i + 1) * LENGTH] = of_views[firsts[i] : firsts[i + 1]].sum(0)


def add_lines(
    k: int, *, lines: torch.Tensor, numbers: torch.Tensor, sums: torch.Tensor, N: int, LENGTH: int,
    ORIGIN: int, STEEP: bool, **_: Any,
) -> None:  # fmt: skip
    sent, across = numbers.numpy(), np.arange(N)
    first, end = (int(sent[2]), int(sent[3])) if STEEP else (0, int(sent[2]))
    image = sums.numpy().T if STEEP else sums.numpy()
    for i in range(first, end):
        line = lines.numpy()[i * LENGTH : (i + 1) * LENGTH]
        start = N + LINE_MARGIN - ORIGIN - (across - ORIGIN) * sent[project.TANS + i]
        below = np.floor(start).astype(int)
        at, w = below[:, None] + across, (start - below)[:, None]
        image += (1 - w) * line[at] + w * line[at + 1]


def add_vertical(
    k: int, *, ring: torch.Tensor, numbers: torch.Tensor, plane: torch.Tensor, sums: torch.Tensor,
    N: int, **_: Any,
) -> None:  # fmt: skip
    x0, y0, dx, dy = plane.tolist()
    line = PlaneLine(x0 + dx * np.arange(N), y0 + dy * np.arange(N))
    _projector(ring).add_vertical(sums, _views(numbers.numpy()), line, float(numbers[0]))


def add_tilted(
    k: int, *, ring: torch.Tensor, numbers: torch.Tensor, plane: torch.Tensor, z0: torch.Tensor,
    lower: torch.Tensor, upper: torch.Tensor, sums: torch.Tensor, N: int, **_: Any,
) -> None:  # fmt: skip
    x0, dx = plane.tolist()
    row = torch.where(lower + upper > 0, z0 + upper.double(), -1.0).numpy()
    rows = TiltedRows(x0 + dx * np.arange(N), row)
    _projector(ring).add_tilted_z(sums, _views(numbers.numpy()), rows, float(numbers[0]))


KERNELS: dict[str, Callable[..., None]] = {
    one.__name__: one
    for one in (
        log_transmission, bridge, multiply, store, resample, add_lines, add_vertical, add_tilted,
    )
}  # fmt: skip
