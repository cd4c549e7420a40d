"""A change of lens in a run: frames are left out, the sample follows, the ring begins anew."""

from __future__ import annotations

import threading

from tomostream_ioc.model.control import LensNames, Severity
from tomostream_ioc.model.lens import (
    MOTOR_RECORDS,
    LensFault,
    LensOptics,
    LensOutcome,
)
from tomostream_ioc.runner.board import Board, ParamStore, RunJob
from tomostream_ioc.runner.intake import ArmedScan, Intake

_TICK_S = 0.2
_SYNC_RECORD = "LensChangeSync"
_RECORDS = (
    "MctOpticsPVPrefix",
    *MOTOR_RECORDS.values(),
    "RoiPluginPVPrefix",
)


class NoOptics:
    """LensOptics where there are none."""

    def open(self, names: LensNames, handler: object) -> None: ...

    def follow(self, crossing: object) -> None: ...

    def close(self) -> None: ...


class LensSync:
    """A LensHandler for one run at a time. ``set_sync`` and the handler's calls are for any thread,
    the rest for the run's.
    """

    def __init__(self, optics: LensOptics | None, board: Board, params: ParamStore):
        self._optics: LensOptics = optics or NoOptics()
        self._board = board
        self._params = params
        self._lock = threading.Lock()
        self._fault_lock = threading.Lock()
        self._sync = False
        self._intake: Intake | None = None
        self._pending = ""  # the lens that was selected and that nobody has followed yet
        self._step = ""
        self._outcome: LensOutcome | None = None
        self._has_optics = False
        self._standing: tuple[LensFault, ...] = ()  # names that do not answer
        self._passing: tuple[LensFault, ...] = ()  # what went wrong in the last change
        self._note = ""

    # ---- any thread

    def set_sync(self, on: bool) -> None:
        self._sync = on
        self._show_faults()

    @property
    def pending(self) -> bool:
        """A lens was selected: `follow` is due."""
        return bool(self._pending)

    @property
    def note(self) -> str:
        """Why the next change can't be followed, for ReconStatus."""
        return self._note

    def on_lens_change(self, lens: str) -> None:
        with self._lock:
            if self._intake is None:
                return
            self._intake.pause()
            self._pending, self._outcome, self._step = lens, None, f"{lens} was selected"
        self._board.wake.set()

    def on_lens_step(self, text: str) -> None:
        self._step = text
        self._board.wake.set()

    def on_lens_done(self, outcome: LensOutcome) -> None:
        with self._lock:
            self._outcome = outcome
        self._board.wake.set()

    def on_lens_faults(self, faults: tuple[LensFault, ...]) -> None:
        self._standing = faults
        self._show_faults()

    # ---- the run's thread

    def open(self, names: LensNames, intake: Intake) -> None:
        """Watch the lens of a new run."""
        with self._lock:
            self._intake, self._pending, self._outcome = intake, "", None
        self._has_optics = bool(names.mct_optics_prefix.strip())
        self._standing = self._passing = ()
        self._optics.open(names, self)
        self._show_faults()

    def close(self) -> None:
        self._optics.close()
        with self._lock:
            self._intake, self._pending = None, ""
        self._standing = self._passing = ()
        self._note = ""
        for record in (*_RECORDS, _SYNC_RECORD):
            self._board.notices.clear_alarm(record)

    def follow(self, job: RunJob, scan: ArmedScan | None, state: str = "Paused") -> str:
        """Wait until the lens is there; returns what has happened.

        ``scan`` is what slices are shown of; without one there is no crossing to keep in view.

        Raises Cancelled when the job was aborted.
        """
        while True:
            with self._lock:
                lens, self._pending = self._pending, ""
            sync = self._sync
            crossing = self._params.crossing() if sync and scan is not None else None
            self._passing = ()
            self._show_faults()
            self._optics.follow(crossing)
            outcome = self._wait(job, f"{state}: ")
            with self._lock:
                again = bool(self._pending)
                if not again and self._intake is not None:
                    scans = {scan, self._intake.resume()}  # two when angles came meanwhile
                    waiting = sum(len(each.staging) for each in scans if each is not None)
                    self._board.counters.add(skipped=waiting)
            what = [f"{_capital(outcome.lens or lens)} selected", *self._finish(outcome, sync)]
            if not again:
                return ", ".join(what)

    def _wait(self, job: RunJob, prefix: str) -> LensOutcome:
        while True:
            self._board.beat(job)
            self._board.message = prefix + self._step
            with self._lock:
                outcome, self._outcome = self._outcome, None
            if outcome is not None:
                return outcome
            self._board.sleep(_TICK_S)

    def _finish(self, outcome: LensOutcome, sync: bool) -> list[str]:
        """Slices in the middle where the sample has followed; says what was set."""
        parts: list[str] = []
        if sync:
            moved, pixel_um = outcome.moved_mm or {}, outcome.pixel_um
            self._params.follow_lens(frozenset(moved), pixel_um)
            if moved:
                slices = ", ".join(f"Ortho{axis.upper()}" for axis in sorted(moved))
                parts.append(f"{slices} set to the middle")
            if pixel_um is not None:
                parts.append(f"PixelSize set to {pixel_um:.4g} um")
        self._passing = outcome.faults
        self._show_faults()
        return parts

    # ---- alarms

    def _show_faults(self) -> None:
        """An alarm for each name that can't be used, and one that says what follows from it."""
        with self._fault_lock:
            if self._intake is not None:
                self._raise_alarms(self._sync)

    def _raise_alarms(self, sync: bool) -> None:
        faults = [*self._standing, *self._passing]
        if sync and not self._has_optics:
            text = "MctOpticsPVPrefix is empty: no change of lens is seen"
            faults.append(LensFault("MctOpticsPVPrefix", Severity.MAJOR, "LINK", text))
        faults = [fault for fault in faults if sync or not fault.only_sync]
        notices = self._board.notices
        by_record: dict[str, LensFault] = {}
        for fault in faults:
            by_record.setdefault(fault.record, fault)
        for record in _RECORDS:
            fault = by_record.get(record)
            if fault is None:
                notices.clear_alarm(record)
            else:
                notices.raise_alarm(record, fault.severity, fault.status, fault.message)
        self._note = "; ".join(fault.message for fault in by_record.values())
        if faults and sync:
            notices.raise_alarm(
                _SYNC_RECORD, Severity.MINOR, "STATE", faults[0].message, quiet=True
            )
        else:
            notices.clear_alarm(_SYNC_RECORD)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
