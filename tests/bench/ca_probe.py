"""A libca client that times its own puts and gets: JSON commands in, JSON answers out.

Puts with completion and gets go through synchronous groups, which wait inside libca as caput and
caget do, without polling. Times are in ms, measured in this process from the call to the answer.
"""

from __future__ import annotations

import ctypes
import json
import sys
import threading
import time
from typing import Any

from epics import ca, dbr

_LIMIT_S = 5.0
_DBE_VALUE = 1


class Probe:
    """The commands; ``values`` are put in turn, so that each put changes the record."""

    def __init__(self) -> None:
        self._libca = ca.initialize_libca()
        self._chids: dict[str, Any] = {}
        self._group = ca.sg_create()
        self._monitors: dict[str, _Latest] = {}

    def put(self, name: str, values: list, count: int) -> list[float]:
        """Puts with completion."""
        chid, times = self._channel(name), []
        for k in range(count):
            began = time.perf_counter()
            ca.sg_put(self._group, chid, values[k % len(values)])
            self._block(name)
            times.append(1e3 * (time.perf_counter() - began))
        return times

    def get(self, name: str, count: int) -> list[float]:
        """Reads of the native type, each a fresh request."""
        chid, times = self._channel(name), []
        kind, size = ca.field_type(chid), ca.element_count(chid)
        data = (size * dbr.Map[kind])()
        for _ in range(count):
            began = time.perf_counter()
            self._libca.ca_sg_array_get(self._group, kind, size, chid, data)
            self._block(name)
            times.append(1e3 * (time.perf_counter() - began))
        return times

    def event(self, name: str, values: list, count: int) -> list[float]:
        """Puts without completion, each until the monitor of this client shows the value."""
        chid, times = self._channel(name), []
        if name not in self._monitors:
            self._monitors[name] = _Latest(self._libca, chid)
        monitor = self._monitors[name]
        for k in range(count):
            value = values[k % len(values)]
            monitor.wanted(value)
            began = time.perf_counter()
            ca.put(chid, value)
            ca.flush_io()
            if not monitor.came.wait(_LIMIT_S):
                raise TimeoutError(f"{name}: no event of {value}")
            times.append(1e3 * (monitor.at_s - began))
        return times

    def flood(self, name: str, values: list, count: int) -> float:
        """Puts without completion as fast as they go, one with at the end; seconds for all."""
        chid = self._channel(name)
        began = time.perf_counter()
        for k in range(count - 1):
            ca.put(chid, values[k % len(values)])
        ca.sg_put(self._group, chid, values[(count - 1) % len(values)])
        self._block(name, 60.0)
        return time.perf_counter() - began

    def _channel(self, name: str) -> Any:
        if name not in self._chids:
            chid = self._chids[name] = ca.create_channel(name)
            if not ca.connect_channel(chid, timeout=_LIMIT_S):
                raise TimeoutError(f"{name} does not connect")
        return self._chids[name]

    def _block(self, name: str, limit_s: float = _LIMIT_S) -> None:
        status = ca.sg_block(self._group, limit_s)
        if status != dbr.ECA_NORMAL:
            raise TimeoutError(f"{name}: {ca.message(status)}")


class _Latest:
    """The newest value of a channel of one number, and when it came."""

    def __init__(self, libca, chid) -> None:
        self.came, self.at_s = threading.Event(), 0.0
        self._wanted: float | None = None
        kind = ca.field_type(chid)
        self._type = dbr.Map[kind]
        self._callback = ctypes.CFUNCTYPE(None, dbr.event_handler_args)(self._on_event)
        event_id = ctypes.c_void_p()
        libca.ca_create_subscription(
            kind, 1, chid, _DBE_VALUE, self._callback, None, ctypes.byref(event_id)
        )
        ca.flush_io()

    def wanted(self, value: float) -> None:
        self.came.clear()
        self._wanted = value

    def _on_event(self, args) -> None:
        now_s = time.perf_counter()
        value = ctypes.cast(args.raw_dbr, ctypes.POINTER(self._type))[0]
        if value == self._wanted:
            self._wanted, self.at_s = None, now_s
            self.came.set()


def main() -> None:
    probe = Probe()
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = {"value": getattr(probe, request["do"])(*request["args"])}
        except Exception as error:  # noqa: BLE001 - whatever it is, the benchmark hears of it
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
