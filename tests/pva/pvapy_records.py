"""A pvapy client as a process of its own; commands are JSON lists: operation, name, value.

get, put, choose (an enum's index), monitor, and seen (the values of a monitor so far).
"""

from __future__ import annotations

import json
import sys
from typing import Any

import pvaccess


def main() -> None:
    pva: Any = pvaccess  # a compiled module without type stubs
    channels: dict[str, Any] = {}
    seen: dict[str, list[Any]] = {}

    def do(operation: str, name: str, value: Any) -> Any:
        channel = channels.get(name)
        if channel is None:
            channel = channels[name] = pva.Channel(name)
            channel.setTimeout(5.0)
        index = {"value": {"index": value}}
        match operation:
            case "get":
                return channel.get("field()").toDict()
            case "put":
                channel.put(value)
            case "choose":
                channel.put(pva.PvObject({"value": {"index": pva.INT}}, index))
            case "monitor":
                seen[name] = []
                channel.monitor(lambda got: seen[name].append(got["value"]), "field(value)")
            case "seen":
                return seen[name]
        return None

    print("ready", flush=True)
    for line in sys.stdin:
        try:
            answer = {"answer": do(*json.loads(line))}
        except Exception as error:  # noqa: BLE001 - the test is to see it
            answer = {"error": str(error)}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
