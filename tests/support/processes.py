"""Processes under test: started on loopback, read line by line, always ended."""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from support.ports import LOOPBACK, ServerPorts, environment

SUPPORT = Path(__file__).parent


def wait_for(condition: Callable[[], Any], limit_s: float = 10.0, what: str = "") -> Any:
    """The condition's first true value; AssertionError when there is none in time."""
    deadline = time.monotonic() + limit_s
    while True:
        value = condition()
        if isinstance(value, np.ndarray) or value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"did not happen in {limit_s:g} s: {what or condition}")
        threading.Event().wait(0.02)


class ChildError(Exception):
    """The child said that a command failed."""


class Child:
    """A Python process with its output in memory."""

    def __init__(self, arguments: Sequence[str], environment: dict[str, str]):
        self.lines: list[str] = []
        self._queue: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self.process = subprocess.Popen(
            [sys.executable, *arguments],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        if self.process.stdout is not None:
            for line in self.process.stdout:
                self.lines.append(line.rstrip("\n"))
                self._queue.put(line)
        self._queue.put(None)

    @property
    def output(self) -> str:
        return "\n".join(self.lines)

    def expect(self, start: str, limit_s: float = 60.0) -> str:
        """The next line that begins with ``start``."""
        deadline = time.monotonic() + limit_s
        while True:
            try:
                line = self._queue.get(timeout=max(deadline - time.monotonic(), 0.0))
            except queue.Empty:
                raise AssertionError(f"no line {start!r} in {limit_s} s:\n{self.output}") from None
            if line is None:
                raise AssertionError(f"ended before a line {start!r}:\n{self.output}")
            if line.startswith(start):
                return line.rstrip("\n")

    def say(self, line: str) -> None:
        if self.process.stdin is None:
            raise RuntimeError("the child has no input")
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def wait(self, limit_s: float = 10.0) -> int:
        return self.process.wait(limit_s)

    def close(self, limit_s: float = 5.0) -> int:
        """End the process whatever it does; its exit code."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(limit_s)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self._reader.join(5.0)
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()
        return self.process.returncode


class CaClient(Child):
    """A libca client in a process of its own."""

    def __init__(self, environment: dict[str, str]):
        super().__init__([str(SUPPORT / "libca_child.py")], environment)

    def _ask(self, do: str, *args: Any, **options: Any) -> Any:
        self.say(json.dumps({"do": do, "args": args, "options": options}))
        # pyepics prints its own complaints, such as refused puts, among the answers
        answer = json.loads(self.expect("{", 60.0))
        if "error" in answer:
            raise ChildError(answer["error"])
        return answer["value"]

    def get(self, name: str, as_string: bool = False) -> Any:
        return self._ask("get", name, as_string=as_string)

    def info(self, name: str) -> dict[str, Any]:
        """Value, type, severity, status, limits, ... of a channel."""
        return self._ask("info", name)

    def put(self, name: str, value: Any, wait: bool = False, timeout: float = 5.0) -> Any:
        return self._ask("put", name, value, wait=wait, timeout=timeout)

    def put_callback(self, name: str, value: Any) -> int:
        """Start a put with completion; ask `put_done` with the token that comes back."""
        return self._ask("put_callback", name, value)

    def put_done(self, token: int) -> bool:
        return self._ask("put_done", token)

    def monitor(self, name: str) -> None:
        self._ask("monitor", name)

    def monitored(self, name: str) -> list[Any]:
        return self._ask("monitored", name)


class SliceReader(Child):
    """A pvapy client in a process of its own that reads images."""

    def __init__(self, environment: dict[str, str], folder: Path):
        super().__init__([str(SUPPORT / "pvapy_reader.py")], environment)
        self._file = folder / "slice.npy"

    def _ask(self, do: str, *args: Any) -> Any:
        self.say(json.dumps({"do": do, "args": args}))
        answer = json.loads(self.expect("{", 30.0))
        if "error" in answer:
            raise ChildError(answer["error"])
        return answer["value"]

    def get(self, channel: str) -> tuple[np.ndarray, dict[str, Any]]:
        """Pixels, and what else the NTNDArray says."""
        facts = self._ask("get", channel, str(self._file))
        return np.load(self._file), facts

    def monitor(self, channel: str) -> None:
        self._ask("monitor", channel)

    def monitored(self, channel: str) -> list[dict[str, Any]]:
        return self._ask("monitored", channel)

    def watch_table(self, channel: str) -> None:
        """Keep the columns of each update of an NTTable; ask `monitored` for them."""
        self._ask("watch_table", channel)


class Ioc(Child):
    """The IOC, as users start it, and clients of it that are not ours."""

    def __init__(
        self,
        folder: Path,
        *options: str,
        reach: tuple[ServerPorts, ...] = (),
        prefix: tuple[str, str] = ("sys:", "TomoStream:"),
    ):
        self.ports = ServerPorts()
        self.prefix = "".join(prefix)
        self.recon = f"{self.prefix}StreamRecon"
        self._folder = folder
        self._clients: list[Child] = []
        arguments = ["-m", "tomostream_ioc", "--P", prefix[0], "--R", prefix[1]]
        arguments += ["--interfaces", LOOPBACK, "--autosave-dir", str(folder / "autosave")]
        super().__init__([*arguments, *options], environment(self.ports, reach))

    @cached_property
    def ca(self) -> CaClient:
        client = CaClient(environment(reach=(self.ports,)))
        self._clients.append(client)
        return client

    @cached_property
    def slices(self) -> SliceReader:
        client = SliceReader(environment(reach=(self.ports,)), self._folder)
        self._clients.append(client)
        return client

    def get(self, record: str, as_string: bool = False) -> Any:
        return self.ca.get(self.prefix + record, as_string)

    def put(self, record: str, value: Any, wait: bool = False) -> Any:
        return self.ca.put(self.prefix + record, value, wait)

    def status(self) -> str:
        """ReconStatus as text."""
        return self.ca.get(self.prefix + "ReconStatus", True)

    def wait_status(self, part: str, limit_s: float = 20.0) -> str:
        seen = [""]

        def shown() -> str:
            seen[0] = self.status()
            return seen[0] if part in seen[0] else ""

        try:
            return wait_for(shown, limit_s)
        except AssertionError:
            raise AssertionError(f"ReconStatus is {seen[0]!r}, not {part!r}") from None

    def wait_value(self, record: str, value: Any, limit_s: float = 20.0) -> None:
        wait_for(lambda: self.get(record) == value, limit_s, f"{record} == {value}")

    def start(self) -> int:
        """Put StartRecon with completion; the token for `ca.put_done`."""
        return self.ca.put_callback(f"{self.prefix}StartRecon", 1)

    def close(self, limit_s: float = 6.0) -> int:
        for client in self._clients:
            client.close()
        return super().close(limit_s)
