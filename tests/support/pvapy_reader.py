"""A pvapy client as a process of its own: reads NTNDArray channels into .npy files, and NTTables.

Commands are JSON lines: {"do": "get", "args": [channel, file]}, monitor, watch_table and monitored.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import numpy as np
import pvaccess


def main() -> None:
    pva: Any = pvaccess  # a compiled module without type stubs
    channels: dict[str, Any] = {}
    seen: dict[str, list] = {}

    def channel(name):
        if name not in channels:
            channels[name] = pva.Channel(name)
            channels[name].setTimeout(20.0)  # a search that is lost is repeated seconds later
        return channels[name]

    def get(name, file):
        image = channel(name).get("")
        sizes = [d["size"] for d in image["dimension"]]
        (kind,) = image["value"][0].keys() if image["value"][0] else ("",)
        pixels = np.asarray(image["value"][0][kind]) if kind else np.empty(0)
        np.save(file, pixels.reshape(sizes[::-1]) if sizes else pixels)
        attributes = {a["name"]: a["value"][0].get("value") for a in image["attribute"]}
        return {
            "kind": kind,
            "sizes": sizes,
            "unique_id": image["uniqueId"],
            "attributes": attributes,
            "alarm": image["alarm"],
            "time": image["timeStamp"],
        }

    def monitor(name):
        seen[name] = []
        channel(name).monitor(
            lambda image: seen[name].append(
                {
                    "at": time.time(),
                    "unique_id": image["uniqueId"],
                    "newest": _attribute(image, "NewestId"),
                    "data_time": image["dataTimeStamp"]["secondsPastEpoch"]
                    + 1e-9 * image["dataTimeStamp"]["nanoseconds"],
                }
            ),
            "field()",
        )

    def monitored(name):
        return seen[name]

    def watch_table(name):
        seen[name] = []
        channel(name).monitor(
            lambda table: seen[name].append(
                {column: np.asarray(cells).tolist() for column, cells in table["value"].items()}
            ),
            "field()",
        )

    commands = {f.__name__: f for f in (get, monitor, monitored, watch_table)}
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = {"value": commands[request["do"]](*request["args"])}
        except Exception as error:  # noqa: BLE001 - whatever it is, the test hears of it
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


def _attribute(image, name):
    for attribute in image["attribute"]:
        if attribute["name"] == name:
            return attribute["value"][0].get("value")
    return None


if __name__ == "__main__":
    main()
