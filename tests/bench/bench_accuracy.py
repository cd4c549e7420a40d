"""How near the slices are to a known object, as a table: python tests/bench/bench_accuracy.py

The measure is that of tests/unit/test_recon_accuracy.py: Shepp-Logan head with values 0 to 1, root
mean square and mean of slice - truth over a disk of 0.95 of the field; beside it scikit-image's
iradon, which interpolates linearly, on the same projections (it has no Parzen and Butterworth).
Options: --device cpu|cuda[:k], --sizes 1024x768 2048x1500 (columns x angles), --no-peer (iradon
takes a minute at 2048 x 1500).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

TESTS = Path(__file__).parents[1]
sys.path.insert(0, str(TESTS))

from support.ellipses import SHEPP_LOGAN, pixel_values, projections  # noqa: E402

from tomostream_ioc.model.params import FILTER_TYPES, ReconParams  # noqa: E402
from tomostream_ioc.recon.engine import OrthoEngine  # noqa: E402
from tomostream_ioc.recon.geometry import ScanGeometry  # noqa: E402

_PEER_FILTERS = {"Ramp": "ramp", "Shepp-logan": "shepp-logan"}
#: the largest line integral: far from the floor of the transmission
_P_MAX = 6.0


def table(n: int, n_angles: int, device: str, peer: bool) -> None:
    theta_deg = np.arange(n_angles) * 180.0 / n_angles
    p = projections(SHEPP_LOGAN, theta_deg, n, n / 2, mean=True)
    true = pixel_values(SHEPP_LOGAN, n)
    scale = _P_MAX / p.max()
    engine = OrthoEngine(ScanGeometry(n_angles, 2, n), "float32", device)
    engine.set_flat(np.ones((2, n)))
    for first in range(0, n_angles, 16):
        part = slice(first, first + 16)
        raw = np.repeat(np.exp(-scale * p[part])[:, None].astype(np.float32), 2, 1)
        engine.push(raw, theta_deg[part], np.arange(n_angles)[part])
    column = np.arange(n) - n // 2
    seen = np.hypot(column[:, None], column) < 0.95 * n / 2
    planes = range(n // 2 - 15 * n // 32, n // 2 + 15 * n // 32 + 1, n // 32)
    print(f"\n{n} x {n} from {n_angles} angles, {engine.where}")
    print("| filter | z slice rmse | bias | y and x slices rmse | bias | iradon rmse | bias |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for filter_type in FILTER_TYPES:
        vertical = []
        z = np.empty((0, 0))
        for i in planes:
            shown = engine.reconstruct(ReconParams(n / 2, i, i, 1, filter_type=filter_type))
            z = shown.z
            vertical.append((shown.y[1] / scale - true[i])[seen[i]])
            vertical.append((shown.x[1] / scale - true[:, i])[seen[i]])
        cells = [numbers((z / scale - true)[seen]), numbers(np.concatenate(vertical)), "- | -"]
        if peer and filter_type in _PEER_FILTERS:
            from skimage.transform import iradon

            name = _PEER_FILTERS[filter_type]
            other = iradon(p.T, theta_deg, n, filter_name=name, circle=True)
            cells[2] = numbers((other - true)[seen])
        print(f"| {filter_type} | {' | '.join(cells)} |", flush=True)
    engine.release()


def numbers(errors: np.ndarray) -> str:
    return f"{np.sqrt(np.mean(errors**2)):.4f} | {errors.mean():+.1e}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--sizes", nargs="*", default=["512x384", "1024x768", "2048x1500"])
    parser.add_argument("--no-peer", action="store_true")
    options = parser.parse_args()
    for size in options.sizes:
        n, n_angles = (int(number) for number in size.split("x"))
        table(n, n_angles, options.device, not options.no_peer)


if __name__ == "__main__":
    main()
