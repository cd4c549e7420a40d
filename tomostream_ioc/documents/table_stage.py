"""A stage that takes tables, a row an event: they are handed on frame by frame."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from event_model import pack_event_page

from tomostream_ioc.documents.image_processor import FRAME
from tomostream_ioc.documents.stage import OpenRun, Stage


class TableRun(OpenRun):
    """A run with rows; ``rows`` are those of frame ``frame``, which may not be all there yet."""

    frame: int | None = None
    taken: float = 0.0

    def __init__(self, *args: Any):
        super().__init__(*args)
        self.rows: list[dict[str, np.ndarray]] = []


class TableStage(Stage):
    """Collects the rows of each frame, from pages or single events.

    A frame is whole when the next one begins, or the run ends: pages may split a frame anywhere,
    as databases do when they replay a run.
    """

    items = "peaks"
    #: columns without which a stream is not for this stage
    needed = frozenset({FRAME})

    def process(self, run: TableRun, frame: int, table: pd.DataFrame) -> None:
        """All rows of one frame; frames come in growing order."""
        raise NotImplementedError

    def _open(self, start: Mapping[str, Any]) -> TableRun:
        return TableRun(start, self._derive(start))

    def _describe(self, run: OpenRun, doc: Mapping[str, Any]) -> bool:
        return self.needed <= set(doc["data_keys"])

    def _work(self, run: OpenRun, name: str, doc: Mapping[str, Any]) -> None:
        run = _table(run)
        page: Any = pack_event_page(doc) if name == "event" else doc  # type: ignore[arg-type]
        seq_nums = [int(n) for n in page["seq_num"]]
        self.counts.received += len(seq_nums)
        fresh = np.array(self._new(run, run.streams[page["descriptor"]], seq_nums), bool)
        columns = {key: np.asarray(column)[fresh] for key, column in page["data"].items()}
        stamps = np.asarray(page["timestamps"].get(FRAME, page["time"]), np.float64)[fresh]
        frames = columns[FRAME]
        edges = np.flatnonzero(frames[1:] != frames[:-1]) + 1
        for rows in np.split(np.arange(len(frames)), edges):
            if not len(rows):
                continue
            frame = int(frames[rows[0]])
            if run.frame is not None and frame != run.frame:
                self._flush(run)
            run.frame = frame
            run.taken = float(stamps[rows[-1]])
            run.rows.append({key: column[rows] for key, column in columns.items()})

    def _finish(self, run: OpenRun) -> None:
        self._flush(_table(run))

    def _flush(self, run: TableRun) -> None:
        if run.frame is None or not run.rows:
            return
        parts, run.rows = run.rows, []
        n_rows = sum(len(part[FRAME]) for part in parts)
        began = time.monotonic()
        try:
            keys = parts[0].keys()
            table = pd.DataFrame(
                {key: np.concatenate([part[key] for part in parts]) for key in keys}
            )
            self.process(run, run.frame, table)
        except Exception as error:  # noqa: BLE001 - one bad frame: the scan goes on
            self._fail(run, f"the peaks of frame {run.frame}", error)
            self.counts.failed += n_rows - 1
        else:
            self.counts.processed += n_rows
            self.pace.done(began, run.taken)


def _table(run: OpenRun) -> TableRun:
    if not isinstance(run, TableRun):
        raise TypeError(f"{type(run).__name__} is no run with rows")
    return run
