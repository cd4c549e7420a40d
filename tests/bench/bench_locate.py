"""Milliseconds to find the peaks of one image: locate beside trackpy.locate.

    python tests/bench/bench_locate.py [--sizes 2048x2048,3072x3888] [--threads 2] [--repeats 10]

The median of several runs, the best in brackets; tables are compared before the clock runs.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import trackpy

sys.path.insert(0, str(Path(__file__).parents[1]))

from support.peak_images import as_pixels, diffraction

from tomostream_ioc.bench.timing import seconds
from tomostream_ioc.tracking import Locator

PARAMETERS: dict[str, Any] = {"diameter": 15, "percentile": 80, "separation": 100}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sizes", default="2048x2048,3072x3888")
    parser.add_argument("--dtypes", default="uint16,float64,float32,uint8")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--repeats", type=int, default=10)
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
                fast = seconds(lambda: locator.locate(image), arguments.repeats).scaled(1e3)  # noqa: B023
            slow = seconds(lambda: trackpy.locate(image, **PARAMETERS), 3).scaled(1e3)  # noqa: B023
            print(
                f"| {rows} x {cols} | {dtype} | {len(ours)} | {slow} | {fast} "
                f"| {slow.best / fast.best:.1f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
