"""Commands of tomostream_ioc.documents as processes, and a scan for them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
from crystal_scan import KEY, SHAPE, frames_at
from support.processes import Child

from tomostream_ioc.documents import build_chain
from tomostream_ioc.documents.frame_file import FrameFile

#: processes import for long where the machine is busy
LIMIT_S = 400.0
SEARCH_RANGE_PX = 8


def find_options(separation: int, search_range_px: int) -> list[str]:
    """Peaks and tracks of the scans of these tests."""
    return [
        "--key", KEY, "--diameter", "11", "--percentile", "80", "--separation", str(separation),
        "--minmass", "500", "--search-range", str(search_range_px),
    ]  # fmt: skip


FIND = find_options(15, SEARCH_RANGE_PX)


class Command(Child):
    """A command, with ``environ`` added to the environment."""

    def __init__(self, *arguments: object, environ: Mapping[str, str] | None = None):
        super().__init__(
            ["-m", "tomostream_ioc.documents", *(str(each) for each in arguments)],
            dict(os.environ, PYTHONUNBUFFERED="1", PYTHONPATH=os.getcwd(), **(environ or {})),
        )

    def expect_any(self, part: str, limit_s: float = LIMIT_S) -> str:
        """The next line with ``part`` in it."""
        while True:
            line = self.expect("", limit_s)
            if part in line:
                return line


def write_scan(path: Path, n_rows: int = SHAPE[0]) -> FrameFile:
    """Frames of the scan, row by row, in an HDF5 file."""
    shape = (n_rows, SHAPE[1])
    frames = np.concatenate([frames_at(point) for point in np.ndindex(shape)])
    with h5py.File(path, "w") as file:
        data = file.create_dataset("/entry/data/data", data=frames)
        data.attrs["shape"] = shape
        data.attrs["frames_per_point"] = len(frames) // (shape[0] * shape[1])
    return FrameFile(path, KEY)


def chain_here(**options: Any):
    """The chain that FIND asks for, in this process."""
    return build_chain(
        KEY,
        diameter=11,
        search_range=SEARCH_RANGE_PX,
        locate={"percentile": 80, "separation": 15, "minmass": 500},
        **options,
    )


def expected_tracks(file: FrameFile) -> pd.DataFrame:
    """What comes out where no network is in between."""
    chain = chain_here()
    tables: list[Any] = []
    chain.linker.on_result = lambda result: tables.append(getattr(result, "table", None))
    for name, doc in file.documents():
        chain(name, doc)
    return pd.concat(tables, ignore_index=True)
