"""Clients that no server would choose, for soak.py: `soak_client.py KIND PREFIX CHANNEL`.

ca-slow, pva-slow   take one update a second
ca-all, pva-all     monitor all they can and do nothing else: soak.py stops or kills them
ca-flood            puts without completion as fast as libca takes them
pva-flood           puts with completion, twenty at a time, one after the other
Each prints `ready` once it does what it is there for, and goes on until it is ended.
"""

from __future__ import annotations

import itertools
import sys
import threading
import time
from collections.abc import Callable

#: what changes while a run is on
LIVELY = (
    *("FrameRate", "ReconRate", "Latency", "ReconTime", "BufferSize", "FramesReceived"),
    *("Watchdog", "HEARTBEAT", "UPTIME", "ReconStatus", "Center", "CenterTweak", "OrthoX"),
)
_FLOODS_AT_ONCE = 20


def ca_monitors(prefix: str, on_update: Callable[..., None]) -> list:
    import epics

    pvs = [epics.PV(prefix + name, callback=on_update, auto_monitor=True) for name in LIVELY]
    for pv in pvs:
        pv.wait_for_connection(10.0)
    return pvs


def ca_slow(prefix: str, channel: str) -> None:
    pvs = ca_monitors(prefix, lambda **_: time.sleep(1.0))
    for_ever(pvs)


def ca_all(prefix: str, channel: str) -> None:
    for_ever(ca_monitors(prefix, lambda **_: None))


def pva_monitors(prefix: str, channel: str, on_update: Callable[[object], None]) -> list:
    from p4p.client.thread import Context

    context = Context("pva", useenv=True, nt=False)
    images = [channel, *(f"{channel}{axis}" for axis in "XYZ")]
    names = [*images, *(prefix + name for name in LIVELY)]
    return [context, *(context.monitor(name, on_update) for name in names)]


def pva_slow(prefix: str, channel: str) -> None:
    for_ever(pva_monitors(prefix, channel, lambda _: time.sleep(1.0)))


def pva_all(prefix: str, channel: str) -> None:
    for_ever(pva_monitors(prefix, channel, lambda _: None))


def ca_flood(prefix: str, channel: str) -> None:
    from epics import ca

    chids = [ca.create_channel(prefix + name) for name in ("CenterTweak", "OrthoX")]
    for chid in chids:
        ca.connect_channel(chid, timeout=10.0)
    print("ready", flush=True)
    for k in itertools.count():
        ca.put(chids[k % 2], 200 + k % 100)


def pva_flood(prefix: str, channel: str) -> None:
    from p4p.client.thread import Context

    context = Context("pva", useenv=True, nt=False)
    print("ready", flush=True)
    for k in itertools.count():
        names = [prefix + "CenterTweak"] * _FLOODS_AT_ONCE
        values = [{"value": float(k % 100 + i)} for i in range(_FLOODS_AT_ONCE)]
        context.put(names, values, get=False, throw=False, timeout=30.0)


def for_ever(_kept: list) -> None:
    print("ready", flush=True)
    threading.Event().wait()


KINDS = {
    "ca-slow": ca_slow,
    "pva-slow": pva_slow,
    "ca-all": ca_all,
    "pva-all": pva_all,
    "ca-flood": ca_flood,
    "pva-flood": pva_flood,
}

if __name__ == "__main__":
    KINDS[sys.argv[1]](sys.argv[2], sys.argv[3])
