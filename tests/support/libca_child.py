"""A libca client (pyepics) as a process of its own: JSON commands in, JSON answers out.

libca reads its environment once per process, so each IOC under test gets a client process.
"""

from __future__ import annotations

import json
import sys

import epics
from epics import dbr

_TIMEOUT_S = 5.0


def main() -> None:
    channels: dict[str, epics.PV] = {}
    monitors: dict[str, list] = {}
    puts: dict[int, dict] = {}

    def channel(name: str) -> epics.PV:
        if name not in channels:
            channels[name] = epics.PV(name, auto_monitor=False)
        pv = channels[name]
        if not pv.wait_for_connection(_TIMEOUT_S):
            raise TimeoutError(f"{name} does not connect")
        return pv

    def get(name, as_string=False, timeout=_TIMEOUT_S):
        value = channel(name).get(as_string=as_string, timeout=timeout, use_monitor=False)
        if value is None:
            raise TimeoutError(f"{name} does not answer")
        return value.tolist() if hasattr(value, "tolist") else value

    def info(name):
        pv = channel(name)
        values = pv.get_with_metadata(form="ctrl", use_monitor=False, timeout=_TIMEOUT_S) or {}
        values |= pv.get_with_metadata(form="time", use_monitor=False, timeout=_TIMEOUT_S) or {}
        values["type"] = dbr.Name(epics.ca.field_type(pv.chid))
        return {key: _plain(value) for key, value in values.items()}

    def put(name, value, wait=False, timeout=_TIMEOUT_S):
        return channel(name).put(value, wait=wait, timeout=timeout)

    def put_callback(name, value):
        token = len(puts)
        puts[token] = {"done": False}
        channel(name).put(value, callback=lambda **kw: puts[token].update(done=True))
        return token

    def put_done(token):
        epics.ca.poll()
        return puts[token]["done"]

    def monitor(name):
        monitors[name] = []
        pv = channel(name)
        pv.add_callback(lambda value=None, **kw: monitors[name].append(_plain(value)))
        pv.auto_monitor = True

    def monitored(name):
        epics.ca.poll()
        return monitors[name]

    commands = {f.__name__: f for f in (get, info, put, put_callback, put_done, monitor, monitored)}
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = {"value": commands[request["do"]](*request["args"], **request["options"])}
        except Exception as error:  # noqa: BLE001 - whatever it is, the test hears of it
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


def _plain(value):
    return value.tolist() if hasattr(value, "tolist") else value


if __name__ == "__main__":
    main()
