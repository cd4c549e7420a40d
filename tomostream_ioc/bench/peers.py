"""One z slice by filtered back-projection, by this program and by others, on the CPU.

The same sinogram of an analytic phantom for all, on all cores that this process may use. Each
program runs in a process of its own, in which its package must be importable (ASTRA, algotom,
scikit-image). Timed is, after one run that is not counted,

  tomostream_ioc  float32 transmission [angle, u] -> logarithm, filter, float16 ring,
                  back-projection, float32 slice: all that the engine does to a slice, by its
                  kernels;
  astra           algorithm.run of CPU FBP (projector 'linear'), data already in place;
  algotom         fbp_reconstruction (numba), ramp without a window, no logarithm;
  skimage         iradon, filter 'ramp', only where it takes less than a minute.

Error: RMS of the slice minus the phantom inside 95 % of the field of view, of the phantom's
maximum. The phantom has sharp edges, which no program can show: its floor is the same for all.

This file is also run by another Python, that has the peers: it imports the product only where it
measures it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

#: x, y, half axes (in half fields of view), angle, attenuation
_ELLIPSES = (
    (0.0, 0.0, 0.80, 0.70, 0.3, 2.0),
    (0.3, -0.2, 0.25, 0.30, 0.0, 2.0),
    (-0.25, 0.3, 0.20, 0.15, 0.7, -1.0),
    (-0.1, -0.35, 0.05, 0.05, 0.0, 1.0),
)
#: line integrals stay below 3
_MU = 0.5
_SKIMAGE_LARGEST = 1024


def sinogram(n: int, n_angles: int) -> np.ndarray:
    """Line integrals (n_angles, n) at u = x cos - y sin + n // 2, float64."""
    theta = np.arange(n_angles)[:, None] * np.pi / n_angles
    s = (np.arange(n) - n // 2) / (n / 2)
    total = np.zeros((n_angles, n))
    for x, y, a, b, phi, mu in _ELLIPSES:
        along, across = np.cos(theta + phi), np.sin(theta + phi)
        r2 = (a * along) ** 2 + (b * across) ** 2
        distance = s - x * np.cos(theta) + y * np.sin(theta)
        total += 2 * _MU * mu * a * b * np.sqrt(np.clip(r2 - distance**2, 0, None)) / r2
    return total


def phantom(n: int, origin: float) -> np.ndarray:
    """The slice (n, n), axes y, x, with object coordinate 0 at index ``origin``."""
    along = (np.arange(n) - origin) / (n / 2)
    x, y = along[None, :], along[:, None]
    total = np.zeros((n, n))
    for ex, ey, a, b, phi, mu in _ELLIPSES:
        u = (x - ex) * np.cos(phi) + (y - ey) * np.sin(phi)
        v = -(x - ex) * np.sin(phi) + (y - ey) * np.cos(phi)
        total += mu * _MU / (n / 2) * ((u / a) ** 2 + (v / b) ** 2 <= 1)
    return total


def error(image: np.ndarray, origin: float) -> float:
    n = len(image)
    truth = phantom(n, origin)
    along = (np.arange(n) - n / 2) ** 2
    seen = along[:, None] + along[None, :] < (0.95 * n / 2) ** 2
    return float(np.sqrt(np.mean((image - truth)[seen] ** 2)) / truth.max())


def ours(p: np.ndarray) -> tuple[Callable[[], np.ndarray], float]:
    """The engine's halves, with the angles of the sinogram as the rows of one frame."""
    from tomostream_ioc.recon.backproject.numba_ import NumbaBackProjector
    from tomostream_ioc.recon.chain import RING_SCALE
    from tomostream_ioc.recon.chain.numba_ import NumbaFilterChain
    from tomostream_ioc.recon.geometry import ScanGeometry, Views
    from tomostream_ioc.recon.memory import column_rows
    from tomostream_ioc.recon.preprocess import Fields
    from tomostream_ioc.recon.workers import Workers

    n_angles, n = p.shape
    transmission = np.exp(-p).astype(np.float32)[None]  # (1, n_angles, n)
    as_frame = ScanGeometry(n_angles=1, n_rows=n_angles, n_cols=n)
    workers = Workers(lambda: None)
    filtered = np.zeros((1, n, column_rows(n_angles)), np.uint16)
    chain = NumbaFilterChain(as_frame, transmission, filtered, workers)
    fields = Fields(as_frame, np.dtype(np.float32))
    fields.set_dark(np.zeros((n_angles, n)))
    fields.set_flat(np.ones((n_angles, n)))
    chain.set_fields(fields.normalisation())
    chain.set_filter("Ramp")
    ring = np.empty((n_angles, n, 1), np.uint16)
    geometry = ScanGeometry(n_angles=n_angles, n_rows=1, n_cols=n)
    projector = NumbaBackProjector(geometry, ring, workers)
    views = Views.at(np.arange(n_angles), np.arange(n_angles) * np.pi / n_angles)
    sums = projector.zeros(n, n)
    first = np.zeros(1, np.int64)

    def run() -> np.ndarray:
        chain.filter(first, first)
        ring[:, :, 0] = filtered[0, :, :n_angles].T
        projector.clear(sums)
        projector.add_z(sums, views, 0, float(n // 2))
        return projector.output(sums, np.pi / (n_angles * RING_SCALE), False)

    return run, n // 2


def astra(p: np.ndarray) -> tuple[Callable[[], np.ndarray], float]:
    import astra  # pyright: ignore[reportMissingImports]

    n_angles, n = p.shape
    # its axis is in the middle of the detector: one column more puts it at n // 2
    theta = np.arange(n_angles) * np.pi / n_angles
    volume = astra.create_vol_geom(n, n)
    detector = astra.create_proj_geom("parallel", 1.0, n + 1, theta)
    projector = astra.create_projector("linear", detector, volume)
    data = astra.data2d.create("-sino", detector, np.pad(p, ((0, 0), (0, 1))).astype(np.float32))
    image = astra.data2d.create("-vol", volume)
    config = astra.astra_dict("FBP")
    config["ProjectorId"], config["ProjectionDataId"] = projector, data
    config["ReconstructionDataId"], config["FilterType"] = image, "ram-lak"
    algorithm = astra.algorithm.create(config)

    def run() -> np.ndarray:
        astra.algorithm.run(algorithm)
        return astra.data2d.get_shared(image)

    # its y grows upwards, and its angles turn the other way
    return run, (n - 1) / 2


def algotom(p: np.ndarray) -> tuple[Callable[[], np.ndarray], float]:
    from algotom.rec.reconstruction import (  # pyright: ignore[reportMissingImports]
        fbp_reconstruction,
    )

    n_angles, n = p.shape
    data, theta = p.astype(np.float32), np.arange(n_angles) * np.pi / n_angles

    def run() -> np.ndarray:
        return fbp_reconstruction(
            data, float(n // 2), theta, ratio=None, filter_name=None, apply_log=False, gpu=False
        )

    return run, n // 2


def skimage(p: np.ndarray) -> tuple[Callable[[], np.ndarray], float]:
    from skimage.transform import iradon

    n_angles, n = p.shape
    data, theta_deg = p.T.astype(np.float32), np.arange(n_angles) * 180.0 / n_angles

    def run() -> np.ndarray:
        return iradon(data, theta_deg, n, "ramp", circle=True)

    return run, n // 2


PROGRAMS = {"tomostream_ioc": ours, "astra": astra, "algotom": algotom, "skimage": skimage}


def measure(name: str, file: str, repeats: int) -> None:
    """In a process of its own: prints times in seconds and the error as JSON."""
    run, origin = PROGRAMS[name](np.load(file))
    began = time.perf_counter()
    image = run()
    slow = time.perf_counter() - began > 5
    times = []
    for _ in range(min(repeats, 2) if slow else repeats):
        began = time.perf_counter()
        image = run()
        times.append(time.perf_counter() - began)
    # conventions differ in the direction of y and of the angles: the same slice mirrored
    value = min(error(mirrored, origin) for mirrored in (image, image[::-1]))
    print(json.dumps({"times": times, "error": value}))


class Measured(NamedTuple):
    """A program's times in seconds and its error, or why there are none."""

    name: str
    times: list[float]
    error: float
    reason: str = ""


def compare(n: int, n_angles: int, repeats: int, python: str) -> Iterator[Measured]:
    """All programs on one slice of n x n pixels; peers by this ``python``, one after the other."""
    cores = str(len(os.sched_getaffinity(0)))
    threads = {f"{name}_NUM_THREADS": cores for name in ("OMP", "MKL", "OPENBLAS", "NUMBA")}
    with tempfile.TemporaryDirectory() as folder:
        file = str(Path(folder) / "sinogram.npy")
        np.save(file, sinogram(n, n_angles))
        for name in PROGRAMS:
            if name == "skimage" and n > _SKIMAGE_LARGEST:
                yield Measured(name, [], 0.0, "takes minutes at this size")
                continue
            own = [sys.executable, "-m", __name__]
            command = own if name == "tomostream_ioc" else [python, __file__]
            done = subprocess.run(
                [*command, "--measure", name, file, "--repeats", str(repeats)],
                env=os.environ | threads, capture_output=True, text=True, check=False,
            )  # fmt: skip
            if done.returncode:
                yield Measured(name, [], 0.0, done.stderr.strip().splitlines()[-1])
                continue
            result = json.loads(done.stdout.splitlines()[-1])
            yield Measured(name, result["times"], result["error"])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--measure", nargs=2, required=True)
    parser.add_argument("--repeats", type=int, required=True)
    options = parser.parse_args()
    name, file = options.measure
    measure(name, file, options.repeats)


if __name__ == "__main__":
    main()
