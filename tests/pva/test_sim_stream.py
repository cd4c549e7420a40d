"""The simulated stream as a real process on loopback, read by pvapy, p4p and a real libca."""

from __future__ import annotations

import asyncio
import json
import logging
import math
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import psutil
import pytest
from p4p.client.thread import Context

from tomostream_ioc.sim.faults import FaultPlan, FaultRates
from tomostream_ioc.sim.phantom import default_phantom
from tomostream_ioc.simulation import SimulatedStream

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


def free_port() -> int:
    """A port that is free for both UDP and TCP on loopback."""
    while True:
        with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
            tcp.bind(("127.0.0.1", 0))
            port = tcp.getsockname()[1]
            try:
                udp.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def wait_for(what: str, look: Callable[[], Any], limit_s: float = LIMIT_S) -> Any:
    end = time.monotonic() + limit_s
    while not (found := look()):
        assert time.monotonic() < end, f"{what} did not come within {limit_s} s"
        time.sleep(0.01)
    return found


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
        assert time.monotonic() - began < 5  # 0.3 s unless the machine is busy with other tests
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
        return wait_for(f"frame {n_frames}", lambda: self.seen[n_frames - 1 :] and self.seen)


def test_pvapy_sees_what_the_totals_say():
    """Ids, order, losses, rate, structures and values, as an independent client sees them."""
    faults = ["--loss", "0.1", "--duplicates", "0.05", "--disorder", "0.1", "--seed", "3"]
    scan = ["--rows", "24", "--cols", "40", "--angles", "12", "--center", "18.5", "--turns", "3"]
    pace = ["--frames", "100", "--rate", "100", "--idle"]
    with sim(*faults, *scan, *pace, "--noise", "none") as running:
        names = [running.ready[name] for name in ("dark", "flat", "theta")]
        assert names[0] == PREFIX + "StreamDarkFields"
        client = running.client(PVAPY, running.ready["image"], *names)
        assert client.stdout is not None
        assert client.stdout.readline() == "subscribed\n"
        running.command("start")
        ended = wait_for("the end", lambda: (r := running.report())["last_id"] >= 100 and r)
        totals = wait_for("quiet", lambda: (r := running.report()) == ended and r)
        saw = json.loads(client.communicate(f"{totals['sent']}\n", timeout=15)[0])
        assert running.stop() == totals

    seen = saw["seen"]
    plan = FaultPlan(3, FaultRates(loss=0.1, duplicates=0.05, disorder=0.1))
    order = [n for k in range(100) for n in plan.send_order(k)] + list(plan.flush())
    assert [frame["id"] for frame in seen] == [k + 1 for k in order]
    assert totals["lost_ids"] == [k + 1 for k in plan.lost]
    assert totals["lost"] == plan.totals.lost > 0
    assert totals["duplicated"] == plan.totals.duplicated > 0
    assert totals["swapped"] == plan.totals.swapped > 0

    assert {tuple(frame["dims"]) for frame in seen} == {(40, 24)}
    assert {frame["member"] for frame in seen} == {"ushortValue"}
    assert {frame["attribute"] for frame in seen} == {"ColorMode"}
    times = [frame["time_s"] for frame in seen]
    assert times == sorted(times)
    assert abs(times[-1] - time.time()) < 60
    paced_s = (order[-1] - order[0]) / 100
    assert 0.9 * paced_s < times[-1] - times[0] < 3 * paced_s  # never too fast; slow when loaded

    dark, flat, theta = (saw["fields"][name] for name in names)
    assert (dark["sizex"], dark["sizey"], len(dark["value"])) == (40, 24, 960)
    assert theta["sizex"] == len(theta["value"]) == 72
    np.testing.assert_allclose(theta["value"], 15.0 * np.arange(72), atol=1e-4)
    assert saw["structures"].count("FLOAT") == 3
    phantom = default_phantom(24, 40)
    dark_sum, signal_counts = np.sum(dark["value"]), np.subtract(flat["value"], dark["value"])
    for frame in seen[::7]:
        p = phantom.projection(math.radians(15.0 * (frame["id"] - 1)), 18.5).ravel()
        expected = dark_sum + np.sum(signal_counts * np.exp(-p))
        assert frame["sum"] == pytest.approx(expected, abs=0.5 * p.size)


def test_retake_binning_and_restart():
    size = ["--size", "64", "--angles", "20", "--rate", "150", "--settle", "0.3"]
    with sim(*size) as running, running.pva() as context:
        frames = Frames(running, context)
        frames.wait(5)
        assert "any value int32_t = 0" in frames.attributes  # ImageJ's viewer wants an int32
        watched = ["FrameType", "StreamMessage", "StreamRetakeFlat"]
        before = np.array(get(context, running.ready["flat"])["value"])
        put = running.put("StreamRetakeFlat", "1", *watched)
        assert put["took"] > 0.5  # the put completed only when the shutter was open again
        assert put["value"] == "Done"
        told = {name: [v for n, v in put["changes"] if n == name] for name in watched}
        assert told["FrameType"] == ["Projection", "FlatField", "Projection"]
        assert told["StreamMessage"] == ["Done", "Capturing flat fields", "Done"]
        assert told["StreamRetakeFlat"] == ["Done", "Capture", "Done"]
        after = np.array(get(context, running.ready["flat"])["value"])
        assert not np.array_equal(before, after)  # new frames, new noise
        np.testing.assert_allclose(after.mean(), before.mean(), rtol=0.01)
        # the flat frames really were in the stream, with ids of their own
        assert running.report()["fields"] == 10
        flats = [i for i, image in frames.seen if abs(image.mean() / after.mean() - 1) < 0.01]
        assert len(flats) == 10
        assert np.ptp(flats) == 9

        running.put("StreamBinning", "2x")
        wait_for("binned frame", lambda: frames.seen[-1][1].shape == (32, 32))
        binned = get(context, running.ready["flat"])
        assert (binned["sizex"], binned["sizey"]) == (32, 32)
        mean = after.reshape(32, 2, 32, 2).mean(axis=(1, 3)).ravel()
        np.testing.assert_allclose(binned["value"], mean, rtol=1e-5)

        assert running.put("AbortScan", "1")["value"] == "No"
        wait_for("a second start", lambda: running.put("StartScan", "0")["value"] == "Done")
        last_id, n_seen = frames.seen[-1][0], len(frames.seen)
        assert last_id > 10
        running.command("start")
        frames.wait(n_seen + 1)
        assert frames.seen[n_seen][0] == 1  # a new scan counts from the beginning
        running.stop()


def test_scan_type_and_sim_records():
    with sim("--size", "32", "--angles", "6", "--idle", "--turns", "2") as running:
        with running.pva() as context:
            frames = Frames(running, context)
            refused = running.put("StreamScanType", "7")
            assert refused["value"] == "continuous"
            running.put("StreamScanType", "backforth")
            running.put("SimRate", "200")
            running.put("SimLossRate", "2")  # no probability: refused
            client = running.client(LIBCA, PREFIX + "StartScan", "1", PREFIX + "NumAngles")
            frames.wait(12)
            theta = get(context, running.ready["theta"])["value"]
            np.testing.assert_allclose(
                theta, 30.0 * np.array([0, 1, 2, 3, 4, 5, 5, 4, 3, 2, 1, 0] * 2)
            )
            by_id = dict(frames.seen)
            np.testing.assert_array_equal(by_id[6], by_id[7])
            np.testing.assert_array_equal(by_id[1], by_id[12])
            assert running.report()["lost"] == 0
            running.put("AbortScan", "1")
            put = json.loads(client.communicate(timeout=15)[0].splitlines()[-1])
            assert put["value"] == "Done"  # the put-callback ended with the scan
            assert put["changes"][-1] == ["NumAngles", "6"]
        running.stop(n_log_lines=2)  # one for each put that was refused


@pytest.fixture
def dxfile(tmp_path):
    path = tmp_path / "scan.h5"
    rng = np.random.default_rng(1)
    with h5py.File(path, "w") as file:
        file["exchange/data"] = rng.integers(100, 4000, (7, 12, 16), dtype=np.uint16)
        file["exchange/data_dark"] = np.full((3, 12, 16), 50, np.uint16)
        file["exchange/data_white"] = np.full((3, 12, 16), 5000, np.uint16)
        file["exchange/theta"] = np.linspace(-90, 90, 7)
    return path


def test_a_dxfile_is_replayed_back_and_forth_with_ids_that_wrap(dxfile):
    ids = ["--id-start", "65530", "--id-bits", "16", "--first-projid", "0"]
    pace = ["--frames", "28", "--rate", "100", "--idle"]
    with sim("--scan", str(dxfile), *ids, *pace) as running, running.pva() as context:
        monitor = Frames(running, context)
        running.command("start")
        frames = monitor.wait(28)
        theta = np.array(get(context, running.ready["theta"])["value"])
        dark = np.array(get(context, running.ready["dark"])["value"])
        running.stop()
    assert [i for i, _ in frames] == [*range(65530, 65536), *range(22)]
    with h5py.File(dxfile) as file:
        data = np.asarray(file["exchange/data"])
    expected = np.concatenate([data, data[::-1], data, data[::-1]])
    np.testing.assert_array_equal([image for _, image in frames], expected)
    forward = np.linspace(-90, 90, 7)
    np.testing.assert_allclose(theta[:14], [*forward, *forward[::-1]], rtol=1e-6)
    np.testing.assert_allclose(dark, 50)


def test_the_shared_scan_is_replayed():
    path = Path(__file__).parents[3] / "shared" / "data" / "savu24737_dx.h5"
    if not path.exists():
        pytest.skip(f"{path} is not here: the shared scan belongs to no checkout")
    pace = ["--rate", "0", "--frames", "91", "--wait-for-client", "--start-delay", "0.1"]
    with sim("--scan", str(path), *pace) as running:
        assert running.report()["sent"] == 0
        with running.pva() as context:
            frames = Frames(running, context)
            _, image = frames.wait(1)[0]
            assert (image.shape, image.dtype) == ((135, 160), np.uint16)
            assert get(context, running.ready["theta"])["value"][0] == pytest.approx(-88.2)
        wait_for("the end", lambda: running.report()["sent"] == 91)
        running.stop()


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
    wait_for("the end of the child", gone, limit_s=5)


def test_the_ioc_finds_its_simulator_alone_and_says_when_it_is_gone(monkeypatch, caplog):
    """A beamline's address list has another server of the same names; kill -9 is noticed once."""
    for name in ("EPICS_CA", "EPICS_PVA"):
        monkeypatch.setenv(f"{name}_ADDR_LIST", "192.0.2.1")
        monkeypatch.setenv(f"{name}_AUTO_ADDR_LIST", "YES")
        monkeypatch.setenv(f"{name}_NAME_SERVERS", "192.0.2.1")

    async def start_and_kill() -> None:
        simulated = SimulatedStream(["--size", "32", "--angles", "4", "--idle"])
        await simulated.start()
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
