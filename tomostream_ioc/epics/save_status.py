"""What autosave tells its users: the SR_ records, which mean what they mean in the C autosave."""

from __future__ import annotations

import time
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tomostream_ioc.epics.group import TomoStreamGroup

_N_CHARACTERS = 39
MONITORED = 12  # SR_0_State: saved every period when something has changed


class Condition(IntEnum):
    """The choices of SR_status; the worst of several is the smallest."""

    NO_STATUS = 0
    FAILURE = 1
    WARNING = 2
    SEQUENCE_FAILED = 3
    OK = 4


@dataclass(frozen=True, slots=True)
class Report:
    """How a restore or a save went."""

    condition: Condition
    text: str

    def shortened(self) -> str:
        """The text as a stringout holds it."""
        text = self.text
        return text if len(text) <= _N_CHARACTERS else text[: _N_CHARACTERS - 3] + "..."


OK = Report(Condition.OK, "Ok")


def time_text(time_s: float) -> str:
    """A time as the C autosave shows it, e.g. ``Sat Nov 21 14:37:14``."""
    return time.strftime("%a %b %d %H:%M:%S", time.localtime(time_s))


class SaveStatus:
    """What happened, and the records that show it.

    ``show`` and ``beat`` are for the server's loop, the others for any thread.
    """

    def __init__(self, group: TomoStreamGroup, name: str):
        self._group = group
        self._name = name
        self._booted_s = time.time()
        self._rebooted = Report(Condition.NO_STATUS, "Status unknown")
        self._saving = Report(Condition.NO_STATUS, "Not yet saved")
        self._saved_s: float | None = None
        self._recently = ""

    @property
    def rebooted(self) -> Report:
        return self._rebooted

    @property
    def saving(self) -> Report:
        return self._saving

    def restored(self, report: Report) -> None:
        self._booted_s, self._rebooted = time.time(), report

    def saving_is(self, report: Report) -> None:
        self._saving = report

    def wrote(self, file_name: str) -> None:
        self._recently = f"Wrote '{file_name}'"
        if file_name == f"{self._name}.sav":
            self._saved_s = time.time()

    async def beat(self) -> None:
        """Show what there is, and that autosave lives."""
        await self.show()
        await self._group.sr_heartbeat.write(1 - self._group.sr_heartbeat.value)

    async def show(self) -> None:
        group = self._group
        saving, rebooted = self._saving, self._rebooted
        shown = [
            (group.sr_status, int(saving.condition)),
            (group.sr_status_str, saving.shortened()),
            (group.sr_recently_str, self._recently[:_N_CHARACTERS]),
            (group.sr_reboot_status, int(rebooted.condition)),
            (group.sr_reboot_status_str, rebooted.shortened()),
            (group.sr_reboot_time, time_text(self._booted_s)),
            (group.sr_0_name, self._name[:_N_CHARACTERS]),
            (group.sr_0_state, MONITORED),
            (group.sr_0_status, int(saving.condition)),
            (group.sr_0_status_str, saving.shortened()),
        ]
        if self._saved_s is not None:
            shown.append((group.sr_0_time, time_text(self._saved_s)))
        for record, value in shown:
            if record.value != value:
                await record.write(value)
