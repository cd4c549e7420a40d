"""Fault 26: the wall clock jumps, in a running program; only time stamps notice."""

from __future__ import annotations

import shutil
import struct
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support.processes import SUPPORT, wait_for
from support.rig import Rig

DAY_S = 86400


@pytest.fixture
def set_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Moves the wall clock of the processes that are started from now on, at any time."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler: the clock of a process can't be moved")
    library, offset = tmp_path / "clock_shim.so", tmp_path / "shift"
    source = str(SUPPORT / "clock_shim.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-O2", "-o", str(library), source], check=True)

    def move(seconds: int) -> None:
        with offset.open("r+b" if offset.exists() else "w+b") as file:
            file.write(struct.pack("=q", seconds))

    move(0)
    monkeypatch.setenv("LD_PRELOAD", str(library))
    monkeypatch.setenv("CLOCK_SHIM_FILE", str(offset))
    return move


@pytest.mark.timeout(300)
def test_26_a_wall_clock_that_jumps_is_seen_in_time_stamps_only(
    tmp_path: Path, set_clock: Callable[[int], None]
) -> None:
    rig = Rig(tmp_path, "--autosave-period", "1")
    try:
        ioc = rig.ioc
        rig.scan()
        token = rig.run()

        def stamp(record: str) -> float:
            return ioc.ca.info(ioc.prefix + record)["timestamp"]

        count = 1
        for shift in (30 * DAY_S, -30 * DAY_S, -365 * DAY_S, 3600, 0):
            set_clock(shift)
            beats = ioc.get("HEARTBEAT")
            rig.send(*range(count + 1, count + 6))
            count += 5
            rig.wait_received(count)
            assert rig.counts("Missed", "Disordered", "Dropped", "Rejected") == (0, 0, 0, 0)
            wait_for(lambda since=beats: ioc.get("HEARTBEAT") > since + 1, 10, "HEARTBEAT")
            ioc.put("OrthoZ", 10 + count % 3, wait=True)
            assert stamp("OrthoZ") == pytest.approx(time.time() + shift, abs=30)
            assert stamp("FramesReceived") == pytest.approx(time.time() + shift, abs=30)
            wait_for(
                lambda moved=shift: abs(slice_time(rig) - (time.time() + moved)) < 30,
                10,
                "a slice with the new time",
            )
            assert ioc.get("ServerRunning") == 1
            assert ioc.get("StartRecon") == 1
            assert ioc.ca.info(f"{ioc.prefix}FrameRate")["severity"] < 3
            assert "day" not in ioc.get("UPTIME")
            saved(rig, tmp_path / "autosave", 10 + count % 3)
        assert not ioc.ca.put_done(token)
        rig.abort()
        wait_for(lambda: ioc.ca.put_done(token), 10, "the end of the put")
        assert "Traceback" not in ioc.output
    finally:
        rig.close()


def slice_time(rig: Rig) -> float:
    return rig.ioc.slices.get(rig.ioc.recon + "Z")[1]["time"]["secondsPastEpoch"]


def saved(rig: Rig, folder: Path, ortho_z: int) -> None:
    """The settings file has the value, soon after it was put."""
    line = f"{rig.ioc.prefix}OrthoZ {ortho_z}"
    wait_for(lambda: any(line in path.read_text() for path in folder.glob("*.sav")), 15, "the save")
