"""tomostream's own solver (CuPy) on the same card and data, for bench_gpu.py."""

from __future__ import annotations

import importlib
import importlib.util
import io
import subprocess
import sys
import tarfile
import tempfile
import time
import types
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

_BATCH = 16


class Upstream:
    """Loads ``path``/tomostream/solver.py, or the same from a git directory."""

    def __init__(self, bench: Any, path: str):
        self._bench = bench
        if importlib.util.find_spec("cupy") is None:
            raise RuntimeError("cupy is absent here: tomostream's solver can't be run")
        self._cupy: Any = importlib.import_module("cupy")
        folder = Path(path)
        if not (folder / "tomostream" / "solver.py").exists():
            folder = _checked_out(folder)
        # the package's __init__ imports its IOC, which needs pvaccess: only the solver is wanted
        package = types.ModuleType("tomostream")
        package.__path__ = [str(folder / "tomostream")]
        sys.modules["tomostream"] = package
        solver: Any = importlib.import_module("tomostream.solver")
        f, i = np.float32, np.int32  # its kernels take these as they are
        self._pars: dict[str, Any] = {
            "center": f(bench.params().center), "idx": i(bench.n // 3), "idy": i(bench.n // 2),
            "idz": i(bench.n_rows // 2), "rotx": f(0), "roty": f(0), "rotz": f(0),
            "fbpfilter": "Parzen", "dezinger": 0, "energy": f(20), "dist": f(0), "alpha": f(0),
            "pixelsize": f(1),
        }  # fmt: skip
        self._solver = solver.Solver(bench.k, bench.n, bench.n_rows, self._pars, "uint16")
        self._solver.set_dark(bench.dark)
        self._solver.set_flat(bench.flat)
        self._chunk = self._solver.chunk
        for i, first in enumerate(range(0, bench.k, _BATCH)):
            end = min(first + _BATCH, bench.k)
            self._solver.data[first:end] = bench.batches[i % len(bench.batches)][: end - first]
        self._solver.theta[:] = bench.theta_deg

    def compare(self) -> None:
        bench, solver = self._bench, self._solver
        ids = np.arange(min(_BATCH, bench.k))
        frames, theta = bench.batches[0][: len(ids)], bench.theta_deg[ids]
        state = [0]

        def theirs_moved() -> None:
            state[0] += 1
            pars = self._pars | {"idz": np.int32(bench.n_rows // 2 - state[0] % 2)}
            solver.recon_optimized(frames, theta, ids, pars)

        def ours_moved() -> None:
            state[0] += 1
            bench.engine.push(frames, theta, ids)
            bench.engine.reconstruct(
                bench.params(
                    ortho_z=bench.n_rows // 2 - state[0] % 2,
                    ortho_x=bench.n // 3 - state[0] % 2,
                    ortho_y=bench.n // 2 - state[0] % 2,
                )
            )

        def theirs_update() -> None:
            solver.recon_optimized(frames, theta, ids, dict(solver.pars))

        def ours_update() -> None:
            bench.engine.push(frames, theta, ids)
            bench.engine.reconstruct(bench.params())

        self._row("slices moved and 16 frames, onto the host", theirs_moved, ours_moved, 2)
        self._row("16 new frames, slices onto the host", theirs_update, ours_update, 5)
        self._on_the_card()

    def _on_the_card(self) -> None:
        """Back-projection of filtered frames that are on the device: no copies, no filter."""
        bench, cupy = self._bench, self._cupy
        k = min(bench.k, self._chunk, 400)
        data = cupy.random.random((k, bench.n_rows, bench.n), dtype=cupy.float32)
        theta = cupy.asarray(np.deg2rad(bench.theta_deg[:k]), dtype=cupy.float32)
        theirs = self._seconds(lambda: self._solver.backprojection(data, theta), 3) / k
        engine, params = bench.engine, bench.params()

        def ours_rebuilt() -> None:
            engine._sums.invalidate()
            engine._sums.rebuild(params, engine._filtered.all, lambda: None)

        engine.reconstruct(params)
        ours = self._seconds(ours_rebuilt, 5) / bench.k
        self._print(f"back-projection alone, {bench.k} angles", theirs * bench.k, ours * bench.k)
        data = None
        cupy.get_default_memory_pool().free_all_blocks()

    def _row(self, name: str, theirs: Callable[[], None], ours: Callable[[], None], n: int) -> None:
        self._print(name, self._seconds(theirs, n), self._seconds(ours, 5))

    def _print(self, name: str, theirs: float, ours: float) -> None:
        note = f"ours {1e3 * ours:.2f} ms: {theirs / ours:.0f} times faster (target 20)"
        self._bench.row(name, 1e3 * theirs, "ms", note)

    def _seconds(self, work: Callable[[], object], repeats: int) -> float:
        """Median by the host's clock, after one run that is not counted."""
        work()
        times = []
        for _ in range(repeats):
            self._sync()
            began = time.perf_counter()
            work()
            self._sync()
            times.append(time.perf_counter() - began)
        return median(times)

    def _sync(self) -> None:
        self._bench.sync()
        self._cupy.cuda.runtime.deviceSynchronize()


def _checked_out(git_dir: Path) -> Path:
    """The package of HEAD of a git directory, in a temporary folder."""
    archive = subprocess.run(
        ["git", "--git-dir", str(git_dir), "archive", "HEAD", "tomostream"],
        capture_output=True, check=True,
    ).stdout  # fmt: skip
    folder = Path(tempfile.mkdtemp(prefix="tomostream-"))
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        tar.extractall(folder, filter="data")
    return folder
