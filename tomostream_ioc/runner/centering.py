"""Searches for the axis of rotation during a run: asked for, or once by themselves."""

from __future__ import annotations

import logging
import threading
import time

from tomostream_ioc.errors import CenterError, ParameterError
from tomostream_ioc.model.binning import effective_params
from tomostream_ioc.model.center import TRUSTED, CenterEstimate
from tomostream_ioc.model.control import CenterSearch, Severity
from tomostream_ioc.runner.arming import Armed
from tomostream_ioc.runner.board import Board, ParamStore

#: a search goes on for so long, at least one step, between two batches of frames
_PART_S = 0.02


class Centering:
    """Keeps what was asked for until the run's thread has done it.

    `request`, `refuse` and ``auto`` are for any thread, the rest for the run's.
    """

    def __init__(self, board: Board, params: ParamStore):
        self._board = board
        self._params = params
        self.auto = False
        self._lock = threading.Lock()
        self._asked_id = 0
        self._ended_id = 0
        self._search: CenterSearch | None = None
        self._done_by_itself = False

    def request(self) -> int:
        """The id of a search, to be told by center_search_ended."""
        with self._lock:
            if self._ended_id == self._asked_id:
                self._asked_id += 1
            asked_id = self._asked_id
        self._board.notices.clear_alarm("FindCenter")
        self._board.wake.set()
        return asked_id

    def refuse(self, reason: str) -> None:
        """A search that was asked for ends here."""
        if self._asked:
            self._fail(reason)

    def stop(self, reason: str) -> None:
        """So does one that goes on; one that nobody asked for is made again later."""
        if self._search is not None and not self._asked:
            self._done_by_itself = False
        self._leave()
        if self._asked:
            self._fail(reason)

    def new_run(self) -> None:
        """The axis may be anywhere, and is looked for anew: also with another lens."""
        self._done_by_itself = False

    def work(self, armed: Armed) -> bool:
        """Begin a search that is due, or go on with one; False when there is nothing to do.

        Raises whatever the engine's heartbeat raises.
        """
        if self._search is None:
            if not self._is_due(armed):
                return False
            self._begin(armed)
            return True
        until_s = time.monotonic() + _PART_S
        try:
            while (found := self._search.step()) is None:
                if time.monotonic() >= until_s:
                    return True
        except MemoryError:  # the search has arrays of its own: the slices go on
            self._leave()
            self._fail("there is not enough memory")
            return False
        self._leave()
        self._show(found, armed.scan.binning)
        return False

    def _leave(self) -> None:
        self._search = None
        self._board.activity = ""

    @property
    def _asked(self) -> bool:
        return self._ended_id != self._asked_id

    def _is_due(self, armed: Armed) -> bool:
        is_full = armed.engine.n_filled == armed.scan.schedule.capacity
        if self.auto and is_full and not self._done_by_itself:
            self._done_by_itself = True
            return True
        return self._asked

    def _begin(self, armed: Armed) -> None:
        self._board.notices.clear_alarm("FindCenter")
        binning = armed.scan.binning
        params, _ = self._params.get().clipped(*armed.scan.shape)
        try:
            if not armed.engine.n_filled:
                raise CenterError("no frame has come yet")
            self._search = armed.engine.center_search(effective_params(params, binning))
            self._board.activity = "looking for the centre"
        except (CenterError, ParameterError) as error:
            self._fail(str(error))

    def _fail(self, reason: str) -> None:
        self._board.center_confidence = 0.0
        text = f"The centre was not found: {reason}"
        self._board.notices.raise_alarm("FindCenter", Severity.MINOR, "STATE", text)
        self._end()

    def _show(self, found: CenterEstimate, binning: int) -> None:
        board = self._board
        center = round(found.center, 3)
        shown = self._params.set_found(center, binning)
        board.center_confidence = found.confidence
        why = f": {found.reason}" if found.reason else ""
        text = f"Centre found at {shown:.2f}, confidence {found.confidence:.2f}{why}"
        if self.auto and found.trusted:
            text += "; Center was set to it"
            self._params.set_center(center, binning)
        elif self.auto:
            text += f"; Center was not set, as that takes {TRUSTED:g}"
        level = logging.INFO if found.trusted else logging.WARNING
        board.notices.say("center", text, level, answer=True)
        self._end()

    def _end(self) -> None:
        with self._lock:
            ended = self._asked_id if self._asked else 0
            self._ended_id = self._asked_id
        if ended and self._params.listener is not None:
            self._params.listener.center_search_ended(ended)
