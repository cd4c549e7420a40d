"""Documents from the network through the chain, into the database, with what to tell the user."""

from __future__ import annotations

import logging
import time
from collections import Counter, deque
from collections.abc import Callable
from typing import Any

from tomostream_ioc.documents.background_writer import BackgroundWriter
from tomostream_ioc.documents.counts import StageCounts
from tomostream_ioc.documents.dispatch import Dispatcher
from tomostream_ioc.documents.pipeline import Pipeline
from tomostream_ioc.documents.transport.receiver import DocumentReceiver

log = logging.getLogger(__name__)

_TICK_S = 0.2


class Server:
    """Feeds ``chain`` with what ``receiver`` hears.

    writer : what the stages record with. It keeps the raw runs too, where ``record_raw``; one that
        the database holds already, as a run that is sent again out of it, is not written twice
    say : gets a line when a run begins or ends
    """

    def __init__(
        self,
        receiver: DocumentReceiver,
        chain: Pipeline,
        *,
        writer: BackgroundWriter | None = None,
        record_raw: bool = False,
        say: Callable[[str], None] = log.info,
    ):
        self.receiver = receiver
        self.chain = chain
        self.raw_counts = StageCounts()
        self._say = say
        self._writer = writer
        self._recorded: dict[str, str] = {}  # of what is being recorded: run by descriptor or uid
        self._dispatcher = Dispatcher(self.raw_counts)
        if writer is not None and record_raw:
            self._dispatcher.subscribe(self._record)
        self._dispatcher.subscribe(chain)
        self._peaks: Counter[str] = Counter()  # by raw run
        self._roots: dict[str, str] = {}  # raw run by uid of a derived run or descriptor
        # what is to be said when the writer has done so many documents
        self._unsaid: deque[tuple[int, str]] = deque()
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
                self._dispatcher.emit(*got)
            self._say_ended()
            now = time.monotonic()
            if now >= tick_at:
                on_tick()
                tick_at = now + tick_s

    def close(self, reason: str) -> None:
        """Close runs that are open as partial ones, with ``reason``, and store all of them."""
        self.chain.close(reason)
        self.receiver.close()
        if self._writer is not None:
            self._writer.flush()
        self._say_ended()

    def status(self) -> str:
        """One line: rate, what was found, and every kind of loss."""
        images, peaks, tracks = (stage.counts for stage in self.chain.stages[:3])
        stages = [stage.counts for stage in self.chain.stages]
        heard = self.receiver.counts
        pace = self.chain.pace[self.chain.tracker.stage_name]
        latency = "" if pace.latency_s != pace.latency_s else f" {pace.latency_s:.2f} s late"
        where = "" if self.receiver.connected else "not connected | "
        losses = {
            "missed": images.missed,
            "failed": sum(counts.failed for counts in stages),
            "orphans": images.orphans,
            "repeated": images.repeated,
            "refused": heard.refused,
            "not recorded": self.raw_counts.subscriber_errors
            + sum(counts.subscriber_errors for counts in stages)
            + (0 if self._writer is None else self._writer.failed),
        }
        return (
            f"{where}frames {peaks.processed} {pace.rate_hz:.1f}/s{latency}"
            f" | peaks {peaks.found} linked {tracks.found}"
            f" | runs {self.chain.mapper.counts.runs}"
            f" partial {self.chain.mapper.counts.partial_runs}"
            f" | {' '.join(f'{name} {n}' for name, n in losses.items())}"
        )

    def _record(self, name: str, doc: Any) -> None:
        """Of runs whose start came: Tiled can't keep the rest of one."""
        if self._writer is None:
            return
        if name == "start":
            if doc["uid"] in self._writer.db:
                log.info("Run %s is in the database already; it is not written again", doc["uid"])
                return
            self._recorded[doc["uid"]] = doc["uid"]
        else:
            owner = doc.get("run_start") or self._recorded.get(
                doc.get("descriptor") or doc.get("stream_resource") or doc.get("resource") or ""
            )
            if owner not in self._recorded:
                return
            if "uid" in doc and name in ("descriptor", "resource", "stream_resource"):
                self._recorded[doc["uid"]] = owner
        self._writer.insert(name, doc)
        if name == "stop":
            owner = doc["run_start"]
            for uid in [uid for uid, run in self._recorded.items() if run == owner]:
                del self._recorded[uid]

    def _say_ended(self) -> None:
        """Of runs that are stored: who reads that a run is there may look for it."""
        done = 0 if self._writer is None else self._writer.done
        while self._unsaid and self._unsaid[0][0] <= done:
            self._say(self._unsaid.popleft()[1])

    def _began(self, _: str, doc: Any) -> None:
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
        n_maps = (doc.get("num_events") or {}).get("primary", 0)
        whole = "whole" if doc["exit_status"] == "success" else f"partial ({doc.get('reason')})"
        text = f"Run {root} is {whole}: {self._peaks.pop(root, 0)} peaks, {n_maps} maps"
        self._unsaid.append((0 if self._writer is None else self._writer.inserted, text))
        for uid in [uid for uid, owner in self._roots.items() if owner == root]:
            del self._roots[uid]
