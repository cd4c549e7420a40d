"""The simulated stream as a process on loopback, and its clients: pvapy, libca and p4p."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from p4p.client.thread import Context
from support.ports import free_port
from support.processes import wait_for

PREFIX = "2bmb:TomoScanStream:"
IMAGE = "2bmbSP1:Pva1:Image"
LIMIT_S = 20.0

#: pvapy client: collects frames until it is told how many there are, prints what it saw
PVAPY = """
import json, sys, time
import numpy as np, pvaccess
seen = []
def on_frame(v):
    value = v["value"][0]
    if not value:  # what an areaDetector's channel holds before its first frame
        print("subscribed", flush=True)
        return
    (name, pixels), = value.items()
    stamp = v["timeStamp"]
    attribute = v["attribute"][0]
    seen.append({
        "id": v["uniqueId"],
        "dims": [d["size"] for d in v["dimension"]],
        "member": name,
        "sum": int(np.sum(pixels, dtype=np.int64)),
        "first": int(pixels[0]),
        "time_s": stamp["secondsPastEpoch"] + 1e-9 * stamp["nanoseconds"],
        "attribute": attribute["name"],
    })
channel = pvaccess.Channel(sys.argv[1])
channel.setTimeout(15)
fields = {}
for name in sys.argv[2:]:
    fields[name] = pvaccess.Channel(name).get("field()").toDict()
    fields[name]["value"] = list(map(float, fields[name]["value"]))
structures = {n: pvaccess.Channel(n).get("field()").getStructureDict() for n in sys.argv[2:]}
channel.subscribe("frames", on_frame)
channel.startMonitor("record[queueSize=500]field()")
n_expected = int(sys.stdin.readline())
end = time.monotonic() + 5
while len(seen) < n_expected and time.monotonic() < end:
    time.sleep(0.01)
print(json.dumps({"seen": seen, "fields": fields, "structures": str(structures)}), flush=True)
"""

#: libca client: a put with callback on a busy record; prints what changed meanwhile
LIBCA = """
import json, sys, time
import epics
record, value, *watched = sys.argv[1:]
changes = []
def on_change(pvname, value, char_value, **_):
    changes.append([pvname.rsplit(":")[-1], value, char_value])
pvs = [epics.PV(name, callback=on_change, auto_monitor=True) for name in watched]
assert all(pv.wait_for_connection(10) for pv in pvs), "no connection"
pv = epics.PV(record)
assert pv.wait_for_connection(10), "no connection"
began = time.monotonic()
pv.put(value, wait=True, timeout=15)
took = time.monotonic() - began
n_changes = -1
while n_changes != len(changes):  # a put may complete just before the last monitor event
    n_changes = len(changes)
    time.sleep(0.3)
strings = {p.pvname.rsplit(":")[-1]: p.enum_strs for p in pvs}  # too late for the first callback
changes = [[n, strings[n][value] if strings[n] else text] for n, value, text in changes]
print(json.dumps({"took": took, "value": epics.caget(record, as_string=True),
                  "changes": changes}), flush=True)
"""


class Sim:
    """The process, its ports, and clients that know them."""

    def __init__(self, *options: str) -> None:
        ca_port, self.pva_port, udp_port = free_port(), free_port(), free_port()
        self.env = os.environ | {
            "EPICS_CA_SERVER_PORT": str(ca_port),
            "EPICS_CA_REPEATER_PORT": str(free_port()),
            "EPICS_CA_ADDR_LIST": "127.0.0.1",
            "EPICS_CA_AUTO_ADDR_LIST": "NO",
            "EPICS_CAS_INTF_ADDR_LIST": "127.0.0.1",
            "EPICS_CAS_BEACON_ADDR_LIST": "127.0.0.1",
            "EPICS_CAS_AUTO_BEACON_ADDR_LIST": "NO",
            "EPICS_PVA_ADDR_LIST": "127.0.0.1",
            "EPICS_PVA_AUTO_ADDR_LIST": "NO",
            "EPICS_PVA_BROADCAST_PORT": str(udp_port),
            "EPICS_PVAS_INTF_ADDR_LIST": "127.0.0.1",
            "EPICS_PVAS_SERVER_PORT": str(self.pva_port),
            "EPICS_PVAS_BROADCAST_PORT": str(udp_port),
            "EPICS_PVAS_BEACON_ADDR_LIST": "127.0.0.1",
            "EPICS_PVAS_AUTO_BEACON_ADDR_LIST": "NO",
            "PYTHONUNBUFFERED": "1",
        }
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tomostream_ioc.sim", "--commands", *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.env,
        )
        self._lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()
        self.ready = dict(
            word.split("=", 1) for word in self.line("ready").removeprefix("ready ").split()
        )

    def _read(self) -> None:
        for line in self.process.stdout or ():
            self._lines.put(line.rstrip())

    def line(self, begins: str) -> str:
        """The next line of standard output; it must begin so."""
        try:
            line = self._lines.get(timeout=LIMIT_S)
        except queue.Empty:
            self.process.kill()
            pytest.fail(f"no line {begins!r}: {self.process.communicate()[1]}")
        assert line.startswith(begins), line
        return line

    def command(self, text: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(text + "\n")
        self.process.stdin.flush()

    def report(self) -> dict[str, Any]:
        self.command("report")
        return json.loads(self.line("{"))

    def client(self, script: str, *argv: str) -> subprocess.Popen[str]:
        """A client in a process of its own: libca and pvAccess read their ports only once."""
        return subprocess.Popen(
            [sys.executable, "-c", script, *argv],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=self.env,
        )

    def put(self, record: str, value: str, *watched: str) -> dict[str, Any]:
        client = self.client(LIBCA, PREFIX + record, value, *(PREFIX + name for name in watched))
        return json.loads(client.communicate(timeout=30)[0].splitlines()[-1])

    def pva(self) -> Context:
        conf = {
            "EPICS_PVA_ADDR_LIST": "127.0.0.1",
            "EPICS_PVA_AUTO_ADDR_LIST": "NO",
            "EPICS_PVA_BROADCAST_PORT": self.env["EPICS_PVA_BROADCAST_PORT"],
        }
        return Context("pva", conf=conf, useenv=False, nt=False)

    def stop(self, n_log_lines: int = 0) -> dict[str, Any]:
        """SIGTERM; the totals that are printed at the end. Clean, and soon."""
        began = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        report = json.loads(self.line("{"))
        assert self.process.wait(timeout=10) == 0
        assert time.monotonic() - began < 15  # 0.3 s unless the machine is busy with other tests
        assert self.process.stderr is not None
        # pvxs says when a client closes its connection while a frame is under way
        log = [line for line in self.process.stderr if "pvxs" not in line]
        assert len(log) == n_log_lines, log
        return report


def get(context: Context, channel: str) -> Any:
    return context.get(channel, timeout=LIMIT_S)


@contextmanager
def sim(*options: str) -> Iterator[Sim]:
    running = Sim(*options)
    try:
        yield running
    finally:
        running.process.kill()
        running.process.wait()


class Frames:
    """Monitors the image channel with p4p; keeps (unique id, pixels)."""

    # the subscription stands when its first event comes: the last frame, or the empty one

    def __init__(self, running: Sim, context: Context) -> None:
        self.seen: list[tuple[int, np.ndarray]] = []
        self.attributes = ""
        self._subscribed = threading.Event()
        self._subscription = context.monitor(
            running.ready["image"], self._on_value, request="record[queueSize=500]field()"
        )
        assert self._subscribed.wait(LIMIT_S)

    def _on_value(self, value: Any) -> None:
        self._subscribed.set()
        if value["value"] is not None:
            n_cols, n_rows = (int(d["size"]) for d in value["dimension"])
            pixels = np.array(value["value"]).reshape(n_rows, n_cols)
            self.seen.append((value["uniqueId"], pixels))
            self.attributes = value["attribute"][0].tostr()

    def wait(self, n_frames: int) -> list[tuple[int, np.ndarray]]:
        return wait_for(
            lambda: self.seen[n_frames - 1 :] and self.seen, LIMIT_S, f"frame {n_frames}"
        )
