"""Milliseconds to find the peaks of one image: locate beside trackpy.locate.

    python tests/bench/bench_locate.py [--sizes 2048x2048,3072x3888] [--threads 2] [--rounds 5]
        [--pin]

The median of all rounds, the best in brackets. A round is one run of trackpy and four of locate, so
that what else the machine does disturbs both. Tables are compared before the clock runs.
"""

from __future__ import annotations

import argparse
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pandas as pd
import trackpy

sys.path.insert(0, str(Path(__file__).parents[1]))

from support.peak_images import as_pixels, diffraction

from tomostream_ioc.bench.timing import Times
from tomostream_ioc.tracking import Locator

PARAMETERS: dict[str, Any] = {"diameter": 15, "percentile": 80, "separation": 100}
RUNS_PER_ROUND = 4


def in_turn(locator: Locator, image: np.ndarray, rounds: int) -> tuple[Times, Times]:
    """Milliseconds of locate and of trackpy."""
    fast, slow = [], []
    for _ in range(rounds):
        slow.append(milliseconds(lambda: trackpy.locate(image, **PARAMETERS)))
        fast += [milliseconds(lambda: locator.locate(image)) for _ in range(RUNS_PER_ROUND)]
    return Times(median(fast), min(fast)), Times(median(slow), min(slow))


def milliseconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return 1e3 * (time.perf_counter() - began)


def pin_threads() -> None:
    """On a busy machine threads that are short at work are left together on one core."""
    cores = sorted(os.sched_getaffinity(0))
    workers = [t.native_id for t in threading.enumerate() if t.name.startswith("locate")]
    for i, worker in enumerate(filter(None, workers)):
        os.sched_setaffinity(worker, {cores[i % len(cores)]})


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sizes", default="2048x2048,3072x3888")
    parser.add_argument("--dtypes", default="uint16,float64,float32,uint8")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--pin", action="store_true", help="a core to each thread (Linux)")
    arguments = parser.parse_args()
    print("| rows x columns | pixels | peaks | trackpy ms | locate ms | times faster (best) |")
    print("| --- | --- | --- | --- | --- | --- |")
    for size in arguments.sizes.split(","):
        rows, cols = (int(n) for n in size.split("x"))
        counts = diffraction((rows, cols), n_peaks=rows * cols // 14000)
        for dtype in arguments.dtypes.split(","):
            image = as_pixels(counts, dtype)
            with Locator(**PARAMETERS, n_threads=arguments.threads) as locator:
                ours, theirs = locator.locate(image), trackpy.locate(image, **PARAMETERS)
                pd.testing.assert_frame_equal(
                    ours.drop(columns="ep"), theirs.drop(columns="ep"), check_exact=True
                )
                np.testing.assert_allclose(ours["ep"], theirs["ep"], rtol=1e-9)
                if arguments.pin:
                    pin_threads()
                fast, slow = in_turn(locator, image, arguments.rounds)
                faster = f"{slow.median / fast.median:.1f} ({slow.best / fast.best:.1f})"
            print(
                f"| {rows} x {cols} | {dtype} | {len(ours)} | {slow} | {fast} | {faster} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
