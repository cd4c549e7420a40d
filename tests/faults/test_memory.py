"""Faults 16 and 17: too little memory when arming, and while running."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from support.processes import wait_for
from support.rig import COLS, ROWS, Rig

from tomostream_ioc.recon import memory
from tomostream_ioc.recon.geometry import ScanGeometry

MIB = 1 << 20
#: angles of a scan whose raw frames fit into the limit, but not twice
ANGLES = 6000


def test_16_limit_makes_the_run_chunked_or_refuses_it_with_both_figures(tmp_path):
    everything, chunked = memory.plans(ScanGeometry(ANGLES, ROWS, COLS), "uint16", "cpu")
    limit = (everything.on_device + chunked.on_device) // 2
    rig = Rig(tmp_path, "--memory-limit", str(limit))
    try:
        rig.scan(ANGLES)
        rig.run()
        rig.ioc.wait_status("chunked: raw frames only, updates take longer")
        assert rig.ioc.get("MemoryPolicy", True) == "chunked"
        assert rig.ioc.get("MemoryUsed") == chunked.on_device / 2**30
        rig.send(2, 3)
        rig.ioc.wait_status(f"3 of {ANGLES}")
        assert rig.ioc.slices.get(rig.ioc.recon)[0].any()
        rig.abort()
        assert rig.ioc.get("MemoryUsed") == 0

        rig.scan(4 * ANGLES)
        token = rig.start()
        rig.send(1)
        refused = rig.ioc.wait_status("Not started")
        needed = memory.plans(ScanGeometry(4 * ANGLES, ROWS, COLS), "uint16", "cpu")[1].on_device
        assert f"needs {memory.in_words(needed)} of memory" in refused
        assert f"{memory.in_words(limit)} are allowed by --memory-limit" in refused
        wait_for(lambda: rig.ioc.ca.put_done(token), 5)

        rig.scan()
        rig.run()
        rig.ioc.wait_value("MemoryPolicy", "all on device")
        assert "chunked" not in rig.ioc.status()
    finally:
        rig.close()


def address_space(pid: int) -> int:
    """What the process has, in bytes, once it has done what it was doing."""
    seen = [(0.0, 0)]

    def same_for_a_second() -> int:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[0])
        if pages != seen[0][1]:
            seen[0] = (time.monotonic(), pages)
        return pages if time.monotonic() - seen[0][0] > 1.0 else 0

    return wait_for(same_for_a_second, 20) * resource.getpagesize()


@contextmanager
def address_space_limited(pid: int, more: int) -> Iterator[None]:
    """The process gets ``more`` bytes beside what it has, and no more."""
    before = resource.prlimit(pid, resource.RLIMIT_AS)
    used = address_space(pid)
    resource.prlimit(pid, resource.RLIMIT_AS, (used + more, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_AS, before)


def test_17_out_of_memory_falls_back_once_and_then_is_a_fault(tmp_path):
    """Of 4096 columns a z slice takes 64 MiB: more than there is to be had."""
    rows, cols, angles = 4, 4096, 20000
    rig = Rig(tmp_path, rows=rows, cols=cols)
    pid = rig.ioc.process.pid
    try:
        rig.scan(angles)
        token = rig.run()
        rig.send(2, 3)
        rig.ioc.wait_status(f"3 of {angles}")
        rig.ioc.wait_value("MemoryPolicy", "all on device")
        before = rig.ioc.get("MemoryUsed")
        with address_space_limited(pid, 24 * MIB):
            rig.ioc.put("OrthoZ", 1, wait=True)
            rig.ioc.wait_status("out of memory while running, now chunked")
            assert rig.ioc.get("MemoryPolicy", True) == "chunked"
            assert 0 < rig.ioc.get("MemoryUsed") < before
            rig.send(4)
            rig.ioc.wait_status(f"4 of {angles}")  # the first three are still there
        assert not rig.ioc.ca.put_done(token)
        with address_space_limited(pid, 24 * MIB):
            rig.ioc.put("OrthoZ", 3, wait=True)
            rig.ioc.wait_status("Fault: out of memory again")
            wait_for(lambda: rig.ioc.ca.put_done(token), 5)
            rig.ioc.wait_value("ServerRunning", 0, 6)
            assert rig.ioc.get("StartRecon") == 0
        assert np.isfinite(rig.ioc.slices.get(f"{rig.ioc.recon}Z")[0]).all()
        rig.run()
        rig.ioc.wait_value("MemoryPolicy", "all on device")
        rig.ioc.wait_value("ServerRunning", 1, 6)
    finally:
        rig.close()
