"""The program in the background: signals that its parent has set to be ignored stay so."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.ports import ServerPorts, environment
from support.processes import CaClient, wait_for

PROGRAM = [sys.executable, "-m", "tomostream_ioc", "--P", "bg:", "--R", "", "--interfaces"]
PROGRAM += ["127.0.0.1", "--autosave-dir", "autosave"]


def still_serves(ports: ServerPorts, after: int) -> None:
    """HEARTBEAT, which is the server's own loop, goes on."""
    client = CaClient(environment(reach=(ports,)))
    try:
        beats = client.get("bg:HEARTBEAT")
        os.kill(after, signal.SIGHUP)
        os.kill(after, signal.SIGINT)
        wait_for(lambda: client.get("bg:HEARTBEAT") > beats + 2, 20, "HEARTBEAT")
    finally:
        client.close()


@pytest.mark.timeout(300)
def test_30_nohup_and_background_jobs_go_on_until_sigterm(tmp_path: Path) -> None:
    """``nohup python -m tomostream_ioc &`` in a shell without job control."""
    ports = ServerPorts()
    env = environment(ports) | {"PYTHONPATH": str(Path(__file__).parents[2])}
    with (tmp_path / "output").open("w") as output:
        shell = subprocess.Popen(
            ["sh", "-c", 'nohup "$@" & echo $!', "sh", *PROGRAM],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=output,
            cwd=tmp_path,
            env=env,
            text=True,
        )
        assert shell.stdout is not None
        pid = int(shell.stdout.readline())
    try:
        assert shell.wait(20) == 0
        assert any(line.startswith("Ready") for line in shell.stdout)
        still_serves(ports, pid)
    finally:
        os.kill(pid, signal.SIGTERM)
        wait_for(lambda: not Path(f"/proc/{pid}").exists() or is_zombie(pid), 30, "the end")
        shell.stdout.close()
    assert (tmp_path / "autosave").is_dir()


def is_zombie(pid: int) -> bool:
    """Ended, and nobody has asked how."""
    return ") Z " in Path(f"/proc/{pid}/stat").read_text()
