"""A p4p monitor that only counts: the limit that the transport sets. Lines in, JSON out."""

from __future__ import annotations

import json
import sys
import threading

from p4p.client.raw import Context


def main() -> None:
    channel, depth = sys.argv[1], sys.argv[2]
    lock = threading.Lock()
    ids: list[int] = []
    with Context("pva", useenv=True, nt=False) as context:
        ready = threading.Event()

        def drain() -> None:
            while True:
                event = subscription.pop()
                if event is None:
                    return
                # touch the pixels, as whoever uses them has to
                if not isinstance(event, Exception) and event["value"] is not None:
                    with lock:
                        ids.append(event["uniqueId"])
                    ready.set()

        wake = threading.Event()
        subscription = context.monitor(
            channel, wake.set, request=f"field(value,dimension,uniqueId)record[queueSize={depth}]"
        )

        def loop() -> None:
            while True:
                wake.wait()
                wake.clear()
                drain()

        threading.Thread(target=loop, daemon=True).start()
        ready.wait(30)
        print("ready", flush=True)
        for line in sys.stdin:
            if line.strip() == "counts":
                with lock:
                    print(json.dumps({"received": len(ids), "newest": max(ids, default=0)}))
                sys.stdout.flush()


if __name__ == "__main__":
    main()
