"""bluesky's own RemoteDispatcher as a process: a line of JSON for each run that has ended.

Arguments: address, prefix, and, for CURVE, the client's secret key and the server's public key.
"""

import json
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
from bluesky.callbacks.zmq import ClientCurve, RemoteDispatcher
from event_model import DocumentRouter

from tomostream_ioc.documents.transport import loads


class Columns(DocumentRouter):
    """Keeps the columns of each stream "primary"."""

    def __init__(self):
        super().__init__()
        self.starts, self.streams, self.pages = {}, {}, defaultdict(list)

    def start(self, doc):
        self.starts[doc["uid"]] = doc

    def descriptor(self, doc):
        if doc.get("name") == "primary":
            self.streams[doc["uid"]] = doc["run_start"]

    def event_page(self, doc):
        if doc["descriptor"] in self.streams:
            self.pages[self.streams[doc["descriptor"]]].append(doc["data"])
        return doc

    def stop(self, doc):
        start, pages = self.starts[doc["run_start"]], self.pages.pop(doc["run_start"], [])
        columns = {
            key: np.concatenate([page[key] for page in pages]).tolist()
            for key in (pages[0] if pages else {})
        }
        said = {
            "stage": start["analysis_stage"],
            "root": start["root_run_uid"],
            "exit_status": doc["exit_status"],
            "reason": doc.get("reason"),
            "columns": columns,
        }
        print(json.dumps(said), flush=True)


address, prefix, *keys = sys.argv[1:]
curve = ClientCurve(Path(keys[0]), Path(keys[1])) if keys else None
dispatcher = RemoteDispatcher(
    address, prefix=prefix.encode(), deserializer=loads, curve_config=curve
)
dispatcher.subscribe(Columns())
print("Ready", flush=True)
dispatcher.start()
