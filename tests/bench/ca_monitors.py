"""Many monitors of one channel, each on a circuit of its own, that only count: lines in, JSON out.

    ca_monitors.py NAME COUNT

`counts` answers with the events since the last `reset` per monitor and the newest value of each.
libca opens a circuit per priority of a channel, so that one process is like COUNT clients; the
callbacks do as little as they can, as the client shares its cores with the server.
"""

from __future__ import annotations

import ctypes
import json
import sys
import time

from epics import ca, dbr

_DBE_VALUE = 1
_LIMIT_S = 20.0
_CONNECTED = 2  # ca_state


def main() -> None:
    name, count = sys.argv[1].encode(), int(sys.argv[2])
    libca = ca.initialize_libca()
    chids = [dbr.chid_t() for _ in range(count)]
    for priority, chid in enumerate(chids):
        libca.ca_create_channel(name, None, None, priority, ctypes.byref(chid))
    deadline = time.monotonic() + _LIMIT_S
    while not all(libca.ca_state(chid) == _CONNECTED for chid in chids):
        if time.monotonic() > deadline:
            raise SystemExit("not all channels connect")
        ca.poll(0.05)
    counts, newest = [0] * count, [0.0] * count
    double = ctypes.POINTER(ctypes.c_double)

    def on_event(args) -> None:
        counts[args.usr] += 1
        newest[args.usr] = ctypes.cast(args.raw_dbr, double)[0]

    callback = ctypes.CFUNCTYPE(None, dbr.event_handler_args)(on_event)
    users = [ctypes.py_object(k) for k in range(count)]
    for chid, user in zip(chids, users, strict=True):
        event_id = ctypes.c_void_p()
        libca.ca_create_subscription(
            dbr.DOUBLE, 1, chid, _DBE_VALUE, callback, user, ctypes.byref(event_id)
        )
    while not all(counts):
        if time.monotonic() > deadline:
            raise SystemExit("not all monitors begin")
        ca.poll(0.05)
    print("ready", flush=True)
    for line in sys.stdin:
        if line.strip() == "reset":
            counts[:] = [0] * count
        print(json.dumps({"counts": counts, "newest": newest}), flush=True)


if __name__ == "__main__":
    main()
