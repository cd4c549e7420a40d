"""A run without torch and EPICS: remembers what it was asked, says what the test wants."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from typing import Any

from tomostream_ioc.model.binning import check_binning
from tomostream_ioc.model.control import ChannelNames, RunListener, RunStatus
from tomostream_ioc.model.params import ReconParams
from tomostream_ioc.model.state import RunState


class FakeRun:
    """RunControl. ``calls`` is every call in order; the test ends runs with ``end``."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []
        self.shown = RunStatus()
        self.rebinned: ReconParams | None = None  # what set_binning() answers
        self.alive = True
        self.ends_on_abort = True
        self.fails_at_once = ""
        self.listener: RunListener | None = None
        self._lock = threading.Lock()
        self._run_id = 0
        self._going = False
        self._frozen_s = 0.0
        self._search_id = 0
        self._searching = False
        self.refuses_searches = ""

    def set_listener(self, listener: RunListener) -> None:
        self.listener = listener

    def start(self, names: ChannelNames, params: ReconParams) -> int:
        with self._lock:
            self.calls.append(("start", (names, params)))
            if not self._going:
                self._run_id += 1
                self._going = True
                self.show(state=RunState.RUNNING, run_id=self._run_id)
                if self.fails_at_once:
                    self._from_elsewhere(self.end, self.fails_at_once)
            return self._run_id

    def abort(self) -> None:
        self.calls.append(("abort", None))
        if self.ends_on_abort and self._going:
            self._from_elsewhere(self.end, "Idle")

    def set_params(self, params: ReconParams) -> None:
        self.calls.append(("set_params", params))

    def set_binning(self, binning: int) -> ReconParams | None:
        check_binning(binning)
        self.calls.append(("set_binning", binning))
        return self.rebinned

    def set_output(self, channel: str) -> None:
        self.calls.append(("set_output", channel))

    def find_center(self) -> int:
        with self._lock:
            if not self._searching:
                self._searching = True
                self._search_id += 1
                if self.refuses_searches:
                    self._from_elsewhere(self.end_search, self.refuses_searches)
            self.calls.append(("find_center", self._search_id))
            return self._search_id

    def set_center_auto(self, on: bool) -> None:
        self.calls.append(("set_center_auto", on))

    def set_lens_sync(self, on: bool) -> None:
        self.calls.append(("set_lens_sync", on))

    def set_crosshair(self, on: bool) -> None:
        self.calls.append(("set_crosshair", on))

    def status(self) -> RunStatus:
        now_s = time.monotonic()
        if self.alive:
            self._frozen_s = now_s
        return replace(self.shown, heartbeat_s=self._frozen_s)

    # --- for the test ---------------------------------------------------------------------

    def show(self, **changes: Any) -> None:
        """Change what status() says."""
        self.shown = replace(self.shown, **changes)

    def end(self, message: str = "Idle") -> None:
        """The run ends, from whatever thread this is."""
        with self._lock:
            self._going = False
            self.show(state=RunState.IDLE, message=message)
            run_id = self._run_id
        if self.listener is not None:
            self.listener.run_ended(run_id)

    def end_search(self, message: str = "", **found: Any) -> None:
        """The search for the axis ends; ``found`` are fields of the status."""
        with self._lock:
            self._searching = False
            self.show(message=message, **found)
            search_id = self._search_id
        if self.listener is not None:
            self.listener.center_search_ended(search_id)

    @property
    def runs(self) -> int:
        """How many runs there have been."""
        return self._run_id

    def of(self, name: str) -> list[Any]:
        """The arguments of every call of that name."""
        return [argument for call, argument in list(self.calls) if call == name]

    @staticmethod
    def _from_elsewhere(function: Any, *arguments: Any) -> None:
        threading.Thread(target=function, args=arguments, daemon=True).start()
