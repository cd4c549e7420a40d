"""What all stages share: runs that open and close, gaps in seq_num, losses said and survived."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from event_model import bulk_datum_to_datum_page, bulk_events_to_event_pages

from tomostream_ioc.documents.counts import Pace, StageCounts
from tomostream_ioc.documents.derived_run import DerivedRun
from tomostream_ioc.documents.dispatch import Callback, Dispatcher
from tomostream_ioc.documents.results import Result
from tomostream_ioc.errors import TrackingError

log = logging.getLogger(__name__)

#: runs open at once; more are runs whose stop never came
MAX_OPEN_RUNS = 16
_EVENTS = frozenset({"event", "event_page", "stream_datum"})
_ASSETS = frozenset({"resource", "datum", "datum_page", "stream_resource"})


class OpenRun:
    """One run that comes in, and the run derived from it. Stages add what they keep per run."""

    def __init__(self, start: Mapping[str, Any], derived: DerivedRun):
        self.start = start
        self.derived = derived
        self.streams: dict[str, str] = {}  # name by descriptor uid, of those that matter
        self.last: defaultdict[str, int] = defaultdict(int)  # seq_num by stream


class Stage:
    """A bluesky callback that derives one run from each that comes.

    ``counts`` says what came and what was lost; ``pace`` how fast it went; ``on_result`` (None, or
    a function) gets each result as it is there. ``db`` is anything with `insert(name, document)`.

    No document stops a stage: what can't be used is logged, counted, and makes the derived run's
    stop document say "fail" and why. Not for several threads at once.
    """

    stage_name = "stage"
    items = "frames"  # what it takes in, for messages

    def __init__(self, db: Any = None):
        self.counts = StageCounts()
        self.pace = Pace()
        self.on_result: Callable[[Result], Any] | None = None
        self._dispatcher = Dispatcher(self.counts)
        self._runs: dict[str, OpenRun] = {}
        self._by_descriptor: dict[str, OpenRun] = {}
        self._ignored: set[str] = set()  # descriptors without anything for this stage
        self._by_resource: dict[str, OpenRun] = {}
        self._orphans: set[str] = set()
        if db is not None:
            insert = getattr(db, "insert", None)
            if not callable(insert):
                raise TrackingError(
                    f"db is a {type(db).__name__}: an object with insert(name, document) is"
                    " needed, such as open_database(folder)."
                )
            self.subscribe(insert)

    def subscribe(self, callback: Callback, name: Any = "all") -> int:
        """Pass derived documents to ``callback(name, document)``; see Dispatcher.subscribe."""
        return self._dispatcher.subscribe(callback, name)

    def unsubscribe(self, token: int) -> None:
        self._dispatcher.unsubscribe(token)

    def __call__(self, name: str, doc: Any) -> None:
        """Take one document."""
        try:
            self._take(str(getattr(name, "name", name)), doc)
        except Exception as error:  # a stream of documents goes on whatever one of them holds
            self.counts.failed += 1
            log.exception("%s: a %s document can't be used", self.stage_name, name)
            run = self._run_of(doc) if isinstance(doc, Mapping) else None
            if run is not None:
                run.derived.problem("documents can't be used", error=error)

    def close(self, reason: str = "the program ended before the run did") -> None:
        """Close all runs whose stop did not come, as aborted."""
        for run in list(self._runs.values()):
            self._close(run, "abort", reason)

    def close_run(self, uid: str, reason: str) -> dict[str, int]:
        """Close the run ``uid`` as aborted; the seq_num to which each of its streams had come.

        What is derived further down is closed by the stop document that this sends.
        """
        run = self._runs.get(uid)
        if run is None:
            return {}
        self._close(run, "abort", reason)
        return dict(run.last)

    def go_on(self, uid: str, last: Mapping[str, int], why: str) -> None:
        """Frames up to ``last`` of a run that was just opened came before, and are not waited for.

        They are missing from what is derived now, which says so: ``why`` goes into the reason.
        """
        run = self._runs.get(uid)
        if run is None:
            return
        for stream in set(run.streams.values()) & set(last):
            run.last[stream] = last[stream]
            run.derived.problem(why, last[stream])

    # for a stage to fill in

    def _parameters(self, start: Mapping[str, Any]) -> dict[str, Any]:
        """What the derived run was made with."""
        raise NotImplementedError

    def _open(self, start: Mapping[str, Any]) -> OpenRun:
        return OpenRun(start, self._derive(start))

    def _describe(self, run: OpenRun, doc: Mapping[str, Any]) -> bool:
        """Whether this descriptor's stream is worked on."""
        raise NotImplementedError

    def _asset(self, run: OpenRun, name: str, doc: Mapping[str, Any]) -> None:
        """Resource, datum and stream_resource documents."""

    def _work(self, run: OpenRun, name: str, doc: Mapping[str, Any]) -> None:
        """An event, event_page or stream_datum."""
        raise NotImplementedError

    def _finish(self, run: OpenRun) -> None:
        """What is to be done and emitted before the derived run's stop."""

    # for a stage to use

    def _derive(self, start: Mapping[str, Any], **extra: Any) -> DerivedRun:
        return DerivedRun(
            start, self.stage_name, self._parameters(start), self._dispatcher.emit, extra
        )

    def _new(self, run: OpenRun, stream: str, seq_nums: Iterable[int]) -> list[bool]:
        """Which of these come for the first time and in order; gaps before them are counted."""
        fresh = []
        for seq_num in seq_nums:
            last = run.last[stream]
            fresh.append(seq_num > last)
            if seq_num <= last:
                self.counts.repeated += 1
                log.warning(
                    "%s: seq_num %d of %r came after %d and is left out",
                    self.stage_name, seq_num, stream, last,
                )  # fmt: skip
                continue
            if seq_num > last + 1:
                self._miss(run, seq_num - last - 1, stream)
            run.last[stream] = seq_num
        return fresh

    def _fail(self, run: OpenRun, what: str, error: BaseException) -> None:
        self.counts.failed += 1
        run.derived.problem(f"{self.items} failed", error=f"{what}: {error}")
        if isinstance(error, TrackingError):
            log.warning("%s: %s: %s", self.stage_name, what, error)
        else:
            log.warning("%s: %s", self.stage_name, what, exc_info=error)

    def _give(self, result: Result) -> None:
        if self.on_result is None:
            return
        try:
            self.on_result(result)
        except Exception:  # a display's fault is its own
            self.counts.subscriber_errors += 1
            log.exception("%s: on_result failed", self.stage_name)

    # documents in

    def _take(self, name: str, doc: Mapping[str, Any]) -> None:
        if name == "bulk_events":
            for page in bulk_events_to_event_pages(dict(doc)):
                self._take("event_page", page)
        elif name == "bulk_datum":
            self._take("datum_page", bulk_datum_to_datum_page(dict(doc)))
        elif name == "start":
            self._start(doc)
        elif name == "stop":
            self._stop(doc)
        elif name == "descriptor":
            self._descriptor(doc)
        elif name in _EVENTS:
            self._event(name, doc)
        elif name in _ASSETS:
            self._assets(name, doc)

    def _start(self, doc: Mapping[str, Any]) -> None:
        if doc["uid"] in self._runs:
            log.warning("%s: the start of run %s came twice", self.stage_name, doc["uid"])
            return
        while len(self._runs) >= MAX_OPEN_RUNS:
            oldest = next(iter(self._runs.values()))
            self._close(oldest, "abort", f"its stop did not come, and {MAX_OPEN_RUNS} runs began")
        self._runs[doc["uid"]] = self._open(doc)

    def _descriptor(self, doc: Mapping[str, Any]) -> None:
        run = self._runs.get(doc["run_start"])
        if run is None:
            self._orphan("descriptor", doc["run_start"], "whose start never came")
            return
        if self._describe(run, doc):
            run.streams[doc["uid"]] = doc["name"]
            self._by_descriptor[doc["uid"]] = run
        else:
            self._ignored.add(doc["uid"])

    def _assets(self, name: str, doc: Mapping[str, Any]) -> None:
        run = self._runs.get(doc.get("run_start", ""))
        if run is not None:
            runs = [run]
        elif doc.get("resource") in self._by_resource:
            runs = [self._by_resource[doc["resource"]]]
        else:
            runs = list(self._runs.values())  # old documents don't say: uids tell them apart
        if run is not None and "uid" in doc:
            self._by_resource[doc["uid"]] = run
        for each in runs:
            self._asset(each, name, doc)

    def _event(self, name: str, doc: Mapping[str, Any]) -> None:
        uid = doc["descriptor"]
        run = self._by_descriptor.get(uid)
        if run is not None:
            self._work(run, name, doc)
        elif uid not in self._ignored:
            self._orphan(name, uid, "whose descriptor never came")

    def _stop(self, doc: Mapping[str, Any]) -> None:
        run = self._runs.get(doc["run_start"])
        if run is None:
            self._orphan("stop", doc["run_start"], "whose start never came")
            return
        for stream, n in (doc.get("num_events") or {}).items():
            if stream in run.streams.values() and n > run.last[stream]:
                self._miss(run, n - run.last[stream], stream)
                run.last[stream] = n
        self._close(run, doc.get("exit_status", "success"), doc.get("reason", ""))

    def _close(self, run: OpenRun, status: str, reason: str) -> None:
        try:
            self._finish(run)
        except Exception as error:  # noqa: BLE001 - closed whatever happens
            self._fail(run, "the run's end", error)
        self._runs.pop(run.start["uid"], None)
        for table in (self._by_descriptor, self._by_resource):
            for uid in [uid for uid, owner in table.items() if owner is run]:
                del table[uid]
        if not self._runs:
            self._ignored.clear()
        self.counts.runs += 1
        whole = run.derived.stop(status, reason)
        if not whole:
            self.counts.partial_runs += 1
            log.warning("%s: run %s is not whole", self.stage_name, run.derived.uid)

    def _miss(self, run: OpenRun, n: int, stream: str) -> None:
        self.counts.missed += n
        run.derived.problem(f"{self.items} never came", n)
        log.warning("%s: %d %s of %r never came", self.stage_name, n, self.items, stream)

    def _orphan(self, name: str, uid: str, why: str) -> None:
        self.counts.orphans += 1
        if uid not in self._orphans:
            self._orphans.add(uid)
            log.warning("%s: a %s of %s, %s, is left out", self.stage_name, name, uid, why)
            if len(self._orphans) > MAX_OPEN_RUNS:
                self._orphans.pop()

    def _run_of(self, doc: Mapping[str, Any]) -> OpenRun | None:
        return self._runs.get(doc.get("run_start", "")) or self._by_descriptor.get(
            doc.get("descriptor", "")
        )
