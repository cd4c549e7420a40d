"""Milliseconds to bin one frame, in one thread, beside those of the plain copy.

    python tests/bench/bench_binning.py [--rows 2048] [--cols 2448]

Each frame is another one, so that it comes from memory, as it does from the transport.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np

from tomostream_ioc.model.binning import binned_dtype, binned_shape
from tomostream_ioc.recon.binning import FrameBinner

FRAMES = 16
PASSES = 6


def times_ms(write: Callable[[np.ndarray, np.ndarray], None], frames, out) -> list[float]:
    write(out, frames[0])  # compiled before the clock runs
    taken = []
    for _ in range(PASSES):
        for frame in frames:
            began = time.perf_counter()
            write(out, frame)
            taken.append(1e3 * (time.perf_counter() - began))
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=2048)
    parser.add_argument("--cols", type=int, default=2448)
    arguments = parser.parse_args()
    shape = arguments.rows, arguments.cols
    rng = np.random.default_rng(0)
    print(f"| {shape[0]} x {shape[1]} | 1x (copy) ms | 2x ms | 4x ms | 2x frames/s |")
    print("| --- | --- | --- | --- | --- |")
    for name in ("uint8", "uint16", "float32"):
        dtype = np.dtype(name)
        frames = [rng.integers(0, 100, shape).astype(dtype) for _ in range(FRAMES)]
        medians, texts = [], []
        for binning in (1, 2, 4):
            out = np.zeros(binned_shape(shape, binning), binned_dtype(dtype, binning))
            write = np.copyto if binning == 1 else FrameBinner(dtype, binning)
            taken = times_ms(write, frames, out)
            medians.append(statistics.median(taken))
            texts.append(f"{medians[-1]:.2f} ({min(taken):.2f})")
        print(f"| {name} | {' | '.join(texts)} | {1e3 / medians[1]:.0f} |", flush=True)


if __name__ == "__main__":
    main()
