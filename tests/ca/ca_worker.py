"""A CA client with the real libca, in a process of its own: JSON lines in, JSON lines out."""

from __future__ import annotations

import ctypes
import json
import math
import os
import sys
import threading
import time
from typing import Any

from epics import ca, dbr

TYPES = {
    "STRING": (dbr.STRING, None),
    "SHORT": (dbr.INT, ctypes.c_short),
    "ENUM": (dbr.ENUM, ctypes.c_ushort),
    "CHAR": (dbr.CHAR, ctypes.c_ubyte),
    "LONG": (dbr.LONG, ctypes.c_int),
    "DOUBLE": (dbr.DOUBLE, ctypes.c_double),
}
NAMES = {0: "STRING", 1: "INT", 2: "FLOAT", 3: "ENUM", 4: "CHAR", 5: "LONG", 6: "DOUBLE"}
CONNECT_S = 5.0


class PutArgs(ctypes.Structure):
    """struct event_handler_args, as a put-callback gets it."""

    _fields_ = (
        ("usr", ctypes.c_void_p),
        ("chid", ctypes.c_void_p),
        ("type", ctypes.c_long),
        ("count", ctypes.c_long),
        ("dbr", ctypes.c_void_p),
        ("status", ctypes.c_int),
    )


PUT_CALLBACK = ctypes.CFUNCTYPE(None, PutArgs)


def plain(value: Any) -> Any:
    """Something that JSON has."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, bytes):
        return value.decode("latin-1")
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


class Worker:
    def __init__(self) -> None:
        self.channels: dict[str, Any] = {}
        self.puts: dict[int, tuple[threading.Event, list[int], Any]] = {}
        self.events: dict[int, list[Any]] = {}
        self.subscriptions: list[Any] = []

    def channel(self, name: str) -> Any:
        if name not in self.channels:
            chid = ca.create_channel(name)
            if not ca.connect_channel(chid, timeout=CONNECT_S):
                raise TimeoutError(f"no {name}")
            self.channels[name] = chid
        return self.channels[name]

    def get(self, name: str, as_string: bool = False, count: int | None = None) -> Any:
        chid = self.channel(name)
        if as_string and ca.field_type(chid) != dbr.CHAR:
            return self.get_string(name)
        return ca.get(chid, as_string=as_string, count=count, timeout=CONNECT_S)

    def get_string(self, name: str) -> Any:
        """A read as DBR_STRING: the server makes the text."""
        return ca.get(self.channel(name), ftype=dbr.STRING, timeout=CONNECT_S)

    def describe(self, name: str) -> Any:
        chid = self.channel(name)
        native = ca.field_type(chid)
        timed = ca.get_with_metadata(chid, ftype=ca.promote_type(chid, use_time=True))
        control = ca.get_ctrlvars(chid)
        if timed is None:
            raise TimeoutError(f"no answer from {name}")
        return {
            "type": NAMES[native],
            "count": ca.element_count(chid),
            "read": bool(ca.read_access(chid)),
            "write": bool(ca.write_access(chid)),
            "value": timed["value"],
            "status": timed["status"],
            "severity": timed["severity"],
            "timestamp": timed["timestamp"],
            "ctrl": control,
        }

    def rights(self, name: str) -> list[bool]:
        """May read, may write, as the server has told."""
        chid = self.channel(name)
        return [bool(ca.read_access(chid)), bool(ca.write_access(chid))]

    def bulk(self, names: list[str]) -> Any:
        """Type, count, access and value of many channels."""
        chids = [ca.create_channel(name, connect=False, auto_cb=False) for name in names]
        ca.pend_io(30.0)
        found = {}
        for chid in chids:
            ca.connect_channel(chid, timeout=CONNECT_S)
            ca.get(chid, wait=False)
        for name, chid in zip(names, chids, strict=True):
            found[name] = {
                "type": NAMES.get(ca.field_type(chid)),
                "count": ca.element_count(chid),
                "write": bool(ca.write_access(chid)),
                "value": ca.get_complete(chid, timeout=CONNECT_S),
            }
        return found

    def start_put(self, name: str, value: Any, dbr_type: str = "STRING") -> int | str:
        """ca_array_put_callback; its number, or the error that libca itself raised."""
        code, ctype = TYPES[dbr_type]
        values = value if isinstance(value, list) else [value]
        if ctype is None:
            data = (ctypes.c_char * 40 * len(values))()
            for index, text in enumerate(values):
                raw = str(text).encode("latin-1")[:40]
                ctypes.memmove(data[index], raw, len(raw))
        else:
            data = (ctype * len(values))(
                *(float(v) if code == dbr.DOUBLE else int(v) for v in values)
            )
        done, statuses = threading.Event(), []

        def completed(args: PutArgs) -> None:
            statuses.append(args.status)
            done.set()

        callback = PUT_CALLBACK(completed)
        channel = self.channel(name)
        libca: Any = ca.libca
        status = libca.ca_array_put_callback(code, len(values), channel, data, callback, None)
        if status != dbr.ECA_NORMAL:
            return f"refused by libca: {status}"
        ca.flush_io()
        number = len(self.puts)
        self.puts[number] = (done, statuses, callback)
        return number

    def put_status(self, number: int, timeout: float) -> int | None:
        """The CA status of a put-callback, None where it has not completed."""
        done, statuses, _ = self.puts[number]
        return statuses[0] if done.wait(timeout) else None

    def put(self, name: str, value: Any, dbr_type: str = "STRING") -> int | str | None:
        number = self.start_put(name, value, dbr_type)
        return number if isinstance(number, str) else self.put_status(number, 5.0)

    def put_blind(self, name: str, value: float) -> int:
        """ca_put without a callback, as caput without -c."""
        return ca.put(self.channel(name), value, wait=False) or 0

    def get_as(self, name: str, dbr_type: str) -> Any:
        """A read as another type; raises where the server does not give it."""
        value = ca.get(self.channel(name), ftype=TYPES[dbr_type][0], timeout=0.5)
        if value is None:
            raise ValueError(f"{name} is not read as {dbr_type}")
        return value

    def monitor(self, name: str, mask: int = 1 | 4, count: int = 0, dbr_type: str = "") -> int:
        number = len(self.events)
        seen = self.events.setdefault(number, [])

        def changed(pvname=None, value=None, **_: Any) -> None:
            seen.append(plain(value))

        chid = self.channel(name)
        counted: dict[str, Any] = {"count": count} if count else {}
        if dbr_type:
            counted["ftype"] = TYPES[dbr_type][0]
        self.subscriptions.append(
            ca.create_subscription(chid, callback=changed, mask=mask, **counted)
        )
        ca.flush_io()
        return number

    def seen(self, number: int, at_least: int = 0, timeout: float = 5.0) -> list[Any]:
        """What a monitor has got, once that is ``at_least`` so many."""
        limit = time.monotonic() + timeout
        while len(self.events[number]) < at_least and time.monotonic() < limit:
            time.sleep(0.005)
        return list(self.events[number])


def main() -> None:
    worker = Worker()
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libca prints must not get between the answers
    for line in sys.stdin:
        name, arguments = json.loads(line)
        try:
            answer = {"answer": plain(getattr(worker, name)(**arguments))}
        except Exception as error:  # noqa: BLE001  (the test is to see it)
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
    os._exit(0)  # libca's clean-up may wait for a server that has gone


if __name__ == "__main__":
    main()
