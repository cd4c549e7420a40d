"""A p4p client that times its own puts and gets: JSON commands in, JSON answers out; times in ms.

pvxs makes an operation anew for each put and get, on both sides of the comparison.
"""

from __future__ import annotations

import json
import sys
import threading
import time

from p4p.client.thread import Context

_LIMIT_S = 5.0


class Probe:
    """The commands; ``values`` are put in turn, so that each put changes the record."""

    def __init__(self) -> None:
        self._context = Context("pva", useenv=True, nt=False)
        self._monitors: dict[str, _Latest] = {}

    def put(self, name: str, values: list, count: int) -> list[float]:
        times = []
        for k in range(count):
            content = self._content(name, values[k % len(values)])
            began = time.perf_counter()
            self._context.put(name, content, get=False, timeout=_LIMIT_S)
            times.append(1e3 * (time.perf_counter() - began))
        return times

    def get(self, name: str, count: int) -> list[float]:
        times = []
        for _ in range(count):
            began = time.perf_counter()
            self._context.get(name, timeout=_LIMIT_S)
            times.append(1e3 * (time.perf_counter() - began))
        return times

    def event(self, name: str, values: list, count: int) -> list[float]:
        """From the put to when the monitor of this client shows the value."""
        if name not in self._monitors:
            self._monitors[name] = _Latest(self._context, name)
        monitor, times = self._monitors[name], []
        for k in range(count):
            content = self._content(name, values[k % len(values)])
            monitor.wanted(values[k % len(values)])
            began = time.perf_counter()
            self._context.put(name, content, get=False, timeout=_LIMIT_S)
            if not monitor.came.wait(_LIMIT_S):
                raise TimeoutError(f"{name}: no event")
            times.append(1e3 * (monitor.at_s - began))
        return times

    def _content(self, name: str, value) -> dict:
        return {"value.index" if name.endswith("Type") else "value": value}


class _Latest:
    def __init__(self, context: Context, name: str) -> None:
        self.came, self.at_s = threading.Event(), 0.0
        self._wanted: float | None = None
        self._subscription = context.monitor(name, self._on_value)

    def wanted(self, value: float) -> None:
        self.came.clear()
        self._wanted = value

    def _on_value(self, update) -> None:
        now_s = time.perf_counter()
        if update["value"] == self._wanted:
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
