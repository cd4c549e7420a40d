"""Documents from the network through the chain, into the database, with what to tell the user."""

from __future__ import annotations

import logging
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tomostream_ioc.documents.background_writer import BackgroundWriter
from tomostream_ioc.documents.counts import RecordCounts, StageCounts
from tomostream_ioc.documents.dispatch import Dispatcher
from tomostream_ioc.documents.pipeline import Pipeline
from tomostream_ioc.documents.run_watch import RunWatch, WatchedRun
from tomostream_ioc.documents.silence import DEFAULT_SILENCE, Silence
from tomostream_ioc.documents.stage import MAX_OPEN_RUNS
from tomostream_ioc.documents.transport.publisher import DocumentPublisher
from tomostream_ioc.documents.transport.receiver import DocumentReceiver

log = logging.getLogger(__name__)

_TICK_S = 0.2


@dataclass(frozen=True, slots=True)
class _Ended:
    """A run whose end is said once the writer has done with what was ``inserted`` until then.

    before : what was recorded, and lost, when it began
    reason : why it is not whole, or None
    """

    run: str
    inserted: int
    before: RecordCounts
    reason: str | None
    found: str


class Server:
    """Feeds ``chain`` with what ``receiver`` hears.

    writer : what the stages record with. It keeps the raw runs too, where ``record_raw``
    publisher : of what the stages find, for its counts
    say : gets a line when a run begins or ends
    silence : a run without a stop whose publisher is gone is closed as partial when another run
        begins, or late; one that goes on nevertheless is opened again
    """

    def __init__(
        self,
        receiver: DocumentReceiver,
        chain: Pipeline,
        *,
        writer: BackgroundWriter | None = None,
        record_raw: bool = False,
        publisher: DocumentPublisher | None = None,
        say: Callable[[str], None] = log.info,
        silence: Silence = DEFAULT_SILENCE,
    ):
        self.receiver = receiver
        self.chain = chain
        self.raw_counts = StageCounts()
        self.silent = 0
        self._say = say
        self._writer = writer
        self._publisher = publisher
        self._record_raw = record_raw and writer is not None
        self._silence = silence
        self._watch = RunWatch()
        self._dispatcher = Dispatcher(self.raw_counts)
        self._dispatcher.subscribe(chain)
        self._peaks: Counter[str] = Counter()  # by raw run
        self._roots: dict[str, str] = {}  # raw run by uid of a derived run or descriptor
        # what is to be said when the writer has done so many documents
        self._unsaid: deque[_Ended] = deque()
        self._before: dict[str, RecordCounts] = {}  # by raw run, when it began
        chain.processor.subscribe(self._began, "start")
        chain.tracker.subscribe(self._note_peaks)
        chain.mapper.subscribe(self._note_maps)

    def run(
        self, ending: Callable[[], bool], on_tick: Callable[[], None], tick_s: float = _TICK_S
    ) -> None:
        """Work until ``ending()`` is true; ``on_tick`` is called every ``tick_s`` or so."""
        tick_at = time.monotonic()
        while not ending():
            got = self.receiver.receive(_TICK_S)
            if got is not None:
                self.take(*got)
            self._say_ended()
            now = time.monotonic()
            self._look_for_silence(now)
            if now >= tick_at:
                on_tick()
                tick_at = now + tick_s

    def take(self, name: str, doc: Any) -> None:
        """One raw document."""
        if name == "start":
            for run in self._watch.open():
                if run.is_silent:
                    self._close(run, "its publisher fell silent, and another run began")
        run = self._watch.heard(name, doc)
        if name == "start" and run is not None:
            while len(self._watch.open()) > MAX_OPEN_RUNS:
                oldest = self._watch.open()[0]
                self._close(oldest, f"its stop did not come, and {MAX_OPEN_RUNS} runs began")
        if run is not None and run.is_closed:
            if name == "stop":
                self._say(f"Run {run.uid}, closed as partial before, has ended")
                self._watch.ended(run)
                return
            self._open_again(run, doc)
        if self._record_raw and self._writer is not None:
            if run is not None and run.resumed:
                self._writer.lose(name, doc, "its run was closed as partial before")
            else:
                self._writer.insert_raw(name, doc)
        self._dispatcher.emit(name, doc)
        if name == "stop" and run is not None:
            self._watch.ended(run)

    def close(self, reason: str) -> None:
        """Close runs that are open as partial ones, with ``reason``, and store all of them."""
        for run in self._watch.open():
            self._close(run, reason)
        self.chain.close(reason)
        self.receiver.close()
        if self._writer is not None:
            self._writer.flush()
        self._say_ended()

    def _look_for_silence(self, now: float) -> None:
        for run in self._watch.open():
            quiet_s = now - run.heard_at
            if quiet_s > self._silence.close_after_s:
                self._close(run, f"no document came for {quiet_s:.0f} s")
            elif quiet_s > self._silence.limit_s and not run.is_silent:
                run.is_silent = True
                self.silent += 1
                self._say(
                    f"Run {run.uid} is silent: no document for {quiet_s:.0f} s. It may go on; if"
                    " another one begins before, it is closed as partial"
                )

    def _close(self, run: WatchedRun, reason: str) -> None:
        """A run whose stop did not come."""
        self._watch.close(run, self.chain.processor.close_run(run.uid, reason))
        if self._record_raw and self._writer is not None and not run.resumed:
            # without a stop the database would keep back what it has not written yet
            stop = {"uid": str(uuid.uuid4()), "run_start": run.uid, "time": time.time()}
            self._writer.insert_raw("stop", stop | {"exit_status": "abort", "reason": reason})

    def _open_again(self, run: WatchedRun, doc: Any) -> None:
        """For ``doc``, which is passed on after this."""
        n = max(run.last.values(), default=0)
        run.is_closed, run.resumed = False, True
        self._say(
            f"Run {run.uid} goes on, though it was closed as partial: what comes now is kept in"
            f" runs of its own, frames 1 to {n} are in those before"
        )
        for name, before in run.head:
            if before is not doc:
                self._dispatcher.emit(name, before)
        self.chain.processor.go_on(run.uid, run.last, "frames came before it was closed as partial")

    def status(self) -> str:
        """One line: rate, what was found, and every kind of loss."""
        images, peaks, tracks = (stage.counts for stage in self.chain.stages[:3])
        stages = [stage.counts for stage in self.chain.stages]
        heard = self.receiver.counts
        pace = self.chain.pace[self.chain.tracker.stage_name]
        latency = "" if pace.latency_s != pace.latency_s else f" {pace.latency_s:.2f} s late"
        where = "" if self.receiver.connected else f"{self._why_not()} | "
        losses = {
            "missed": images.missed,
            "failed": sum(counts.failed for counts in stages),
            "orphans": images.orphans,
            "repeated": images.repeated,
            "refused": heard.refused,
            "silent": self.silent,
            "not recorded": self._not_recorded,
        }
        if self._publisher is not None:
            losses["not published"] = self._publisher.dropped
        return (
            f"{where}frames {peaks.processed} {pace.rate_hz:.1f}/s{latency}"
            f" | peaks {peaks.found} linked {tracks.found}"
            f" | runs {self.chain.mapper.counts.runs}"
            f" partial {self.chain.mapper.counts.partial_runs}"
            f" | {' '.join(f'{name} {n}' for name, n in losses.items())}"
        )

    def _why_not(self) -> str:
        refusal = self.receiver.refusal
        return f"not connected: {refusal}" if refusal else "not connected"

    @property
    def _subscriber_errors(self) -> int:
        stages = [stage.counts for stage in self.chain.stages]
        return sum(counts.subscriber_errors for counts in (self.raw_counts, *stages))

    @property
    def _not_recorded(self) -> int:
        failed = 0 if self._writer is None else self._writer.failed
        return failed + self._subscriber_errors

    def _recorded(self) -> RecordCounts:
        refused = RecordCounts(documents_lost=self._subscriber_errors)
        return refused if self._writer is None else self._writer.recorded.plus(refused)

    def _say_ended(self) -> None:
        """Of runs that are stored: who reads that a run is there may look for it."""
        writer = self._writer
        while self._unsaid:
            ended = self._unsaid[0]
            away = writer is not None and writer.is_away
            if writer is not None and writer.done < ended.inserted and not away:
                return
            self._unsaid.popleft()
            problems = [] if ended.reason is None else [ended.reason]
            if away:
                problems.append("the database is away, not all of it is recorded")
            since = self._recorded().plus(ended.before, -1)
            if since.losses:
                problems.append(
                    f"recording failed: {since.losses} lost, {since.rows} rows recorded,"
                    " see the log"
                )
            whole = f"partial ({'; '.join(problems)})" if problems else "whole"
            if since.attempts and not problems:
                failed = f"{since.attempts} attempt{'s' * (since.attempts > 1)} failed"
                whole = f"whole (all {since.rows} rows recorded, {failed})"
            self._say(f"Run {ended.run} is {whole}: {ended.found}")

    def _began(self, _: str, doc: Any) -> None:
        self._before[doc["root_run_uid"]] = self._recorded()
        shape = " x ".join(str(n) for n in doc.get("shape", ()))
        self._say(f"Run {doc['root_run_uid']} began{f': {shape} points' if shape else ''}")

    def _note_peaks(self, name: str, doc: Any) -> None:
        if name == "start":
            self._roots[doc["uid"]] = doc["root_run_uid"]
        elif name == "descriptor":
            self._roots[doc["uid"]] = self._roots.get(doc["run_start"], "")
        elif name == "event_page":
            self._peaks[self._roots.get(doc["descriptor"], "")] += len(doc["seq_num"])

    def _note_maps(self, name: str, doc: Any) -> None:
        if name == "start":
            self._roots[doc["uid"]] = doc["root_run_uid"]
        if name != "stop":
            return
        root = self._roots.get(doc["run_start"], "")
        self._unsaid.append(
            _Ended(
                run=root,
                inserted=0 if self._writer is None else self._writer.inserted,
                before=self._before.pop(root, RecordCounts()),
                reason=None if doc["exit_status"] == "success" else str(doc.get("reason")),
                found=f"{self._peaks.pop(root, 0)} peaks,"
                f" {(doc.get('num_events') or {}).get('primary', 0)} maps",
            )
        )
        for uid in [uid for uid, owner in self._roots.items() if owner == root]:
            del self._roots[uid]
