"""Milliseconds of the parts of peak tracking but for the peaks themselves, in one thread.

    python tests/bench/bench_tracking_parts.py [--size 2048] [--frames 1 2 5]

Background of a point of 1, 2 or 5 frames, a synthetic frame, the passes of window maps, links of
100 peaks a frame, and their maps. Each image is another one, so that it comes from memory.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterable

import numpy as np
import pandas as pd

from tomostream_ioc.tracking import (
    BackgroundSubtractor,
    CrystalMaps,
    ExtremeImages,
    OnlineLinker,
    ScanGrid,
    WindowMaps,
    average_frames,
    subtract_background,
)
from tomostream_ioc.tracking.rod import CrystalRod

POINTS = 6
PASSES = 4


def measure(name: str, work: Callable, inputs: Iterable) -> None:
    inputs = list(inputs)
    work(inputs[0])  # compiled before the clock runs
    taken = []
    for _ in range(PASSES):
        for one in inputs:
            began = time.perf_counter()
            work(one)
            taken.append(1e3 * (time.perf_counter() - began))
    median = statistics.median(taken)
    print(f"| {name} | {median:.2f} ({min(taken):.2f}) | {1e3 / median:.0f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size", type=int, default=2048)
    parser.add_argument("--frames", type=int, nargs="+", default=[1, 2, 5])
    arguments = parser.parse_args()
    size = arguments.size
    rng = np.random.default_rng(0)
    dark = rng.uniform(90, 110, (size, size))
    print(f"| {size} x {size} | ms (least) | per second |\n| --- | --- | --- |")
    for n in arguments.frames:
        points = [rng.integers(0, 300, (n, size, size), np.uint16) for _ in range(POINTS)]
        out = np.empty((size, size), np.float32)
        subtract = BackgroundSubtractor(dark)
        measure(f"background, {n} uint16 frames", lambda p, s=subtract, o=out: s(p, o), points)
        measure(
            f"the same in numpy, {n} frames",
            lambda p: subtract_background(average_frames(p), dark),
            points[:2],
        )
    images = [rng.integers(0, 300, (size, size), np.uint16) for _ in range(POINTS)]
    extremes = ExtremeImages()
    measure("minimum and maximum", extremes.add, images)
    peaks = pd.DataFrame(rng.uniform(0, size - 1, (100, 2)), columns=["y", "x"]).assign(mass=1.0)
    windows = WindowMaps(ScanGrid((POINTS,)), peaks, extremes.minimum())
    measure("100 windows", lambda image: windows.add(1, image), images)
    for noise in ("tiled", "poisson"):
        rod = CrystalRod((30, 40), True, 20, (size, size), noise=noise, separation_px=40)
        measure(f"synthetic frame, {noise}", rod.image, range(101, 101 + POINTS))
    grid = ScanGrid((100, 100), snaking=(False, True))
    linker, maps, frames = OnlineLinker(20, grid=grid), CrystalMaps(grid), iter(range(1, 10_001))

    def link(positions: np.ndarray) -> None:
        frame = next(frames)
        labels = linker.add(positions, frame)
        maps.add_peaks(np.full(len(labels), frame), labels, np.ones(len(labels)), positions)

    spots = rng.uniform(0, size, (100, 2))
    moved = [spots[rng.uniform(size=100) < 0.7] for _ in range(200)]
    measure("links of 70 of 100 peaks, and maps", link, moved)
    measure("100 maps of 100 x 100 points", lambda n: maps.maps(n=n), [100] * POINTS)


if __name__ == "__main__":
    main()
