"""The program around the run: its names, its terminal, Ctrl-C, and servers that end."""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import os
import pty
import signal
import subprocess
import sys
import termios
import time
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from support.ports import ServerPorts, environment
from support.processes import Child, Ioc, wait_for
from support.rig import SMALL_SCAN

from tomostream_ioc.config import parse
from tomostream_ioc.console import shortened, status_text
from tomostream_ioc.model.control import RunStatus
from tomostream_ioc.model.state import RunState
from tomostream_ioc.simulation import simulator_arguments

PROGRAM = [sys.executable, "-m", "tomostream_ioc"]
SIMULATED = ["--interfaces", "127.0.0.1", "--simulate", SMALL_SCAN]

#: the IOC with a CA server that fails once it has begun to listen and a file is there
CA_FAILS = """
import asyncio, os, sys
from tomostream_ioc import __main__, app

class Failing(app.IocContext):
    async def broadcast_beacon_loop(self):
        while not os.path.exists(sys.argv[1]):
            await asyncio.sleep(0.02)
        raise RuntimeError("the network is on fire")

app.IocContext = Failing
sys.exit(__main__.main(sys.argv[2:]))
"""


@pytest.mark.parametrize(
    ("options", "prefix"), [([], "foo:TomoScanStream:"), (["--TOMO_SCAN", "scan:"], "scan:")]
)
def test_the_simulator_is_given_the_names_of_the_ioc(options: list[str], prefix: str) -> None:
    config = parse(["--P", "foo:", "--R", "bar:", "--simulate", *options])
    given = simulator_arguments(config)
    assert given[:3] == (f"--P={prefix}", "--R=", f"--pva-prefix={prefix}SimPva1:")
    # the simulator's record that says which plugin it is
    assert config.macros["IMAGE_P"] == f"{prefix}PvaPluginPVPrefix"
    for kind, name in {"dark": "DarkFields", "flat": "FlatFields", "theta": "Theta"}.items():
        assert f"--{kind}-channel={prefix}Stream{name}" in given
        assert config.macros[f"{kind.upper()}_PVA"] == f"{prefix}Stream{name}"


def test_a_stream_of_the_simulator_under_the_ioc_s_names_is_reconstructed(tmp_path):
    options = "--TOMO_SCAN scan: --DARK_PVA my:dark --THETA_PVA my:theta --IMAGE_P my:Pva1:Image"
    ioc = Ioc(tmp_path, "--simulate", SMALL_SCAN, *options.split(), prefix=("foo:", "bar:"))
    try:
        ioc.expect("Ready")
        ioc.wait_status("Running")
        assert ioc.get("ImagePVAPName") == "my:Pva1:Image"
    finally:
        ioc.close()


@pytest.mark.parametrize("stderr_too", [False, True])
def test_a_terminal_that_goes_away_ends_the_program_cleanly(tmp_path, stderr_too):
    terminal, program_side = pty.openpty()
    errors = tmp_path / "errors"
    with errors.open("w") as file:
        process = subprocess.Popen(
            # many log lines: some come after the end of the terminal
            [*PROGRAM, *SIMULATED, "--log-level", "DEBUG"],
            stdin=program_side,
            stdout=program_side,
            stderr=program_side if stderr_too else file,
            env=environment(ServerPorts()),
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
    os.close(program_side)
    try:
        shown = b""
        while b"slices/s" not in shown:
            shown += os.read(terminal, 65536)
        os.close(terminal)  # SIGHUP
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.wait()
    assert "Traceback" not in errors.read_text()


def test_a_reader_that_goes_away_does_not_end_the_program(tmp_path):
    errors = tmp_path / "errors"
    with errors.open("w") as file:
        process = subprocess.Popen(
            [*PROGRAM, *SIMULATED, "--seconds", "3", "--log-level", "WARNING"],
            stdout=subprocess.PIPE,
            stderr=file,
            env=environment(ServerPorts()),
        )
    try:
        assert process.stdout is not None
        assert process.stdout.readline()
        process.stdout.close()
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
    assert errors.read_text() == ""


def test_list_pvs_to_a_reader_that_goes_away():
    process = subprocess.Popen(
        [*PROGRAM, "--list-pvs"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == b""
    assert process.wait(30) == 0
    process.stderr.close()


@pytest.mark.parametrize("loaded", ["_multiarray_umath", "p4p/", "llvmlite"])
def test_ctrl_c_while_the_program_is_still_loading_ends_it_at_once(tmp_path, loaded):
    process = subprocess.Popen(
        [*PROGRAM, "--interfaces", "127.0.0.1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=tmp_path,
        env=environment(ServerPorts()),
    )
    maps = Path(f"/proc/{process.pid}/maps")
    try:
        deadline = time.monotonic() + 30
        while loaded not in maps.read_text() and time.monotonic() < deadline:
            time.sleep(0.002)
        process.send_signal(signal.SIGINT)
        output = process.communicate(timeout=10)[0]
    finally:
        process.kill()
        process.wait()
    assert output == ""
    assert process.returncode == 130


@pytest.mark.parametrize("line", ["", "Ready"])
def test_a_ca_server_that_fails_ends_the_program_with_exit_code_1(tmp_path, line):
    now = tmp_path / "now"
    options = ["--interfaces", "127.0.0.1", "--autosave-dir", str(tmp_path), "--seconds", "40"]
    if not line:
        now.touch()
    ioc = Child(["-c", CA_FAILS, str(now), *options], environment(ServerPorts()))
    try:
        if line:
            ioc.expect(line)
            now.touch()
        assert ioc.wait(60) == 1
    finally:
        ioc.close()
    assert "The CA server has ended: RuntimeError('the network is on fire')" in ioc.output
    assert ioc.lines[-1] == "Ended"


def test_a_picture_that_can_not_be_written_is_one_line_in_the_log(tmp_path):
    (tmp_path / "x.png").mkdir()
    ioc = Ioc(tmp_path, "--simulate", SMALL_SCAN, "--png", str(tmp_path / "x.png"))
    try:
        ioc.expect("Ready")
        ioc.wait_status("Running")
        wait_for(lambda: ioc.get("ReconTime") > 0)
        ioc.signal(signal.SIGTERM)
        assert ioc.wait(10) == 0
        assert "The last slices can't be drawn: " in ioc.output
        assert "Traceback" not in ioc.output
    finally:
        with contextlib.suppress(AssertionError):
            ioc.close()


def test_the_status_line_says_why_there_are_no_slices():
    arming = RunStatus(state=RunState.ARMING, message="Arming: waiting for the dark field")
    assert status_text(arming).startswith("Arming: waiting for the dark field | frames 0")
    fault = RunStatus(state=RunState.FAULT, message="no memory")
    assert status_text(fault).startswith("Fault: no memory |")
    assert "0.0 slices/s" in status_text(RunStatus(state=RunState.RUNNING, message="as it should"))
    assert shortened("0123456789", 10) == "0123456789"
    assert shortened("0123456789", 8) == "01234..."


def test_a_log_in_json_has_an_object_in_each_line_and_who_put_what(tmp_path):
    ioc = Ioc(tmp_path, "--log-format", "json", "--TOMO_SCAN", "nobody:", "--timeout", "1")
    try:
        ioc.expect("Ready")
        ioc.put("Center", math.nan, wait=True)
        ioc.put("StartRecon", 1)
        ioc.wait_status("Not started")
    finally:
        ioc.close()
    logged = [json.loads(line) for line in ioc.lines if line.startswith("{")]
    assert all({"time", "level", "part", "thread", "message"} <= set(line) for line in logged)
    refused = next(line for line in logged if "pv" in line)
    assert refused["pv"] == ioc.prefix + "Center"
    assert refused["value"] == "nan"
    assert refused["address"] == "127.0.0.1"
    assert refused["level"] == "INFO"
    assert datetime.fromisoformat(refused["time"]).utcoffset() == timedelta(0)
    assert "alarm ReconStatus" in [line.get("cause") for line in logged]
