"""The life of the simulator's process: its parent, the IOC that starts it, what it refuses."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys

import psutil
from sim_process import LIMIT_S, sim
from support.ports import free_port
from support.processes import wait_for

from tomostream_ioc.simulation import SimulatedStream


def test_it_ends_with_its_parent():
    """A parent that is killed takes the simulator along; the simulator is not told by anyone."""
    parent_code = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-m', 'tomostream_ioc.sim', '--size', '32',"
        " '--angles', '4', '--exit-with-parent'], stdout=subprocess.PIPE, text=True)\n"
        "print(child.stdout.readline().split()[0], child.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    env = os.environ | {
        "EPICS_CA_SERVER_PORT": str(free_port()),
        "EPICS_CAS_INTF_ADDR_LIST": "127.0.0.1",
        "EPICS_CAS_AUTO_BEACON_ADDR_LIST": "NO",
        "EPICS_PVAS_INTF_ADDR_LIST": "127.0.0.1",
        "EPICS_PVAS_SERVER_PORT": str(free_port()),
        "EPICS_PVAS_BROADCAST_PORT": str(free_port()),
    }
    parent = subprocess.Popen(
        [sys.executable, "-c", parent_code], stdout=subprocess.PIPE, text=True, env=env
    )
    assert parent.stdout is not None
    word, pid = parent.stdout.readline().split()
    assert word == "ready"
    child = psutil.Process(int(pid))
    parent.kill()
    parent.wait()
    gone = lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE  # noqa: E731
    wait_for(gone, 5, "the end of the child")


def test_the_ioc_finds_its_simulator_alone_and_says_when_it_is_gone(monkeypatch, caplog):
    """A beamline's address list has another server of the same names; kill -9 is noticed once."""
    for name in ("EPICS_CA", "EPICS_PVA"):
        monkeypatch.setenv(f"{name}_ADDR_LIST", "192.0.2.1")
        monkeypatch.setenv(f"{name}_AUTO_ADDR_LIST", "YES")
        monkeypatch.setenv(f"{name}_NAME_SERVERS", "192.0.2.1")

    async def start_and_kill() -> None:
        simulated = SimulatedStream(["--size", "32", "--angles", "4", "--idle"])
        await simulated.start()
        await simulated.ready()
        assert not any("192.0.2.1" in value for value in os.environ.values())
        (child,) = psutil.Process().children()
        child.kill()
        for _ in range(500):
            if caplog.records:
                break
            await asyncio.sleep(0.01)
        await simulated.stop()

    async def start_and_stop() -> None:
        simulated = SimulatedStream(["--size", "32", "--angles", "4", "--idle"])
        await simulated.start()
        await simulated.ready()
        await simulated.stop()

    with caplog.at_level(logging.ERROR):
        asyncio.run(start_and_kill())
        assert [r.message for r in caplog.records] == [
            "the simulated scan ended with signal SIGKILL: there will be no more frames"
        ]
        caplog.clear()
        asyncio.run(start_and_stop())
        assert not caplog.records


def test_what_cannot_be_is_refused_in_one_line(tmp_path):
    refused = subprocess.run(
        [sys.executable, "-m", "tomostream_ioc.sim", "--scan", str(tmp_path / "none.h5")],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert refused.returncode == 2
    assert refused.stderr.endswith("none.h5 does not exist\n")
    assert len(refused.stderr.splitlines()) == 1
    assert refused.stdout == ""


def test_a_port_in_use_is_refused():
    """Neither server may move to another port silently when one was asked for."""
    with sim("--size", "32", "--angles", "4", "--idle") as running:
        taken = running.ready["ca_tcp_port"]
        refused = subprocess.run(
            [sys.executable, "-m", "tomostream_ioc.sim", "--size", "32", "--ca-port", taken],
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
            env=running.env | {"EPICS_PVAS_SERVER_PORT": str(free_port())},
        )
        assert refused.returncode == 2
        assert f"CA port {taken} is in use" in refused.stderr
        assert refused.stdout == ""
        running.stop()
