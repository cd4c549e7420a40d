"""A detector by pvapy that has scanned a crystal rod, and an IOC that is to track its peaks."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from support.ports import ServerPorts, environment
from support.processes import Child, Ioc
from support.rig import PVA_TESTS
from tomostream_ioc.tracking.rod import CrystalRod

CHANNEL = "det:Image"
#: what finds the rod's peaks
FINDING = {"Diameter": 11, "Separation": 16, "MinMass": 1500, "SearchRange": 5}


class RodDetector(Child):
    """Sends the images of the scan when it is told to; they are in ``scan.npy`` of its folder."""

    def __init__(self, folder: Path, rod: CrystalRod):
        self.ports = ServerPorts()
        scan = folder / "scan.npy"
        np.save(scan, np.concatenate([rod.frames(number) for number in range(1, rod.n_points + 1)]))
        script = str(PVA_TESTS / "pvapy_sender.py")
        super().__init__(
            [script, "--prefix", "det:", "--frames", str(scan)], environment(self.ports)
        )
        try:
            self.expect("ready")
        except BaseException:
            self.close()
            raise

    def burst(self, count: int, start: int = 1, hz: int = 60) -> None:
        self.say(f"burst {count} start={start} hz={hz}")
        self.expect("ok burst", 60)


@contextlib.contextmanager
def tracking_ioc(
    folder: Path, rod: CrystalRod, detector: RodDetector, **records: Any
) -> Iterator[Ioc]:
    """Ready to track that scan; ``records`` are further ones of Crystal: to put."""
    background = folder / "background.npy"
    np.save(background, rod.truth.background)
    rows, columns = rod.grid.shape
    grid = {"Rows": rows, "Columns": columns, "FramesPerPoint": rod.n_frames}
    ioc = Ioc(folder, "--CRYSTAL_PVA", CHANNEL, reach=(detector.ports,))
    try:
        ioc.expect("Ready", 100)
        for record, value in {
            **FINDING, **grid, "BackgroundFile": str(background), **records
        }.items():  # fmt: skip
            ioc.put(f"Crystal:{record}", value, wait=True)
        yield ioc
    finally:
        ioc.close()
