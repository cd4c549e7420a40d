"""A run read back from Tiled, as documents that any bluesky callback takes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from tomostream_ioc.documents.tiled_server import documents_of


class RecordedRun:
    """What Tiled's client knows of a run, and its documents.

    All attributes and streams of the client (`run.metadata`, `run["primary"]`...) are here too.
    """

    def __init__(self, client: Any):
        self.client = client

    @property
    def start(self) -> dict[str, Any]:
        return dict(self.client.metadata["start"])

    @property
    def stop(self) -> dict[str, Any] | None:
        """None for a run that is still growing, or whose writer ended before it."""
        stop = self.client.metadata.get("stop")
        return None if stop is None else dict(stop)

    def documents(self, fill: Any = False) -> Iterator[tuple[str, dict[str, Any]]]:
        """All documents, in order. Images in files stay there (StreamResource, StreamDatum).

        Arrays are arrays again, of the type that the descriptor says, where Tiled's export makes
        lists of them; and events say that nothing is left for event_model's Filler to fill.
        """
        arrays: dict[str, dict[str, Any]] = {}
        for name, doc in documents_of(self.client):
            doc = dict(doc)
            if name == "descriptor":
                arrays[doc["uid"]] = {
                    key: declared.get("dtype_numpy")
                    for key, declared in doc["data_keys"].items()
                    if declared["dtype"] == "array"
                }
            elif name == "event":
                doc.setdefault("filled", {})
                doc["data"] = {
                    key: np.array(value, dtype=arrays[doc["descriptor"]][key])
                    if key in arrays[doc["descriptor"]]
                    else value
                    for key, value in doc["data"].items()
                }
            elif name == "stop" and not doc:
                return  # the run never ended
            yield name, doc

    def __getitem__(self, stream: str) -> Any:
        return self.client[stream]

    def __iter__(self) -> Iterator[str]:
        return iter(self.client)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.client, name)
