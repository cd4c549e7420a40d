"""The records that tell of autosave, with the names of the C autosave (save_restoreStatus.db)."""

from __future__ import annotations

from typing import Any

from caproto.server import PVGroup

from tomostream_ioc.epics.declare import declare
from tomostream_ioc.epics.records import Bo, Longout, Mbbo, Stringout

# the choices of a status, and the severity of each
_STATES = ((0, "No Status"), (1, "Failure"), (2, "Warning"), (3, "Seq Fail"), (4, "Ok"))
_SEVERITIES: dict[str, Any] = {"ONSV": "MAJOR", "TWSV": "MINOR", "THSV": "MAJOR"}


class AutosaveRecords(PVGroup):
    """How restoring and saving settings went; for clients to read."""

    sr_heartbeat = declare(
        Bo,
        "SR_heartbeat",
        "Turns over every second",
        value=0,
        read_only=True,
        ZNAM="0",
        ONAM="1",
    )
    sr_status = declare(
        Mbbo,
        "SR_status",
        "How saving settings goes",
        value=0,
        read_only=True,
        states=_STATES,
        **_SEVERITIES,
    )
    sr_status_str = declare(
        Stringout,
        "SR_statusStr",
        "How saving settings goes, in words",
        value="Status unknown",
        read_only=True,
    )
    sr_recently_str = declare(
        Stringout, "SR_recentlyStr", "What was written last", value="", read_only=True
    )
    sr_reboot_status = declare(
        Mbbo,
        "SR_rebootStatus",
        "How restoring settings went",
        value=0,
        read_only=True,
        states=_STATES,
        **_SEVERITIES,
    )
    sr_reboot_status_str = declare(
        Stringout,
        "SR_rebootStatusStr",
        "How restoring settings went, in words",
        value="Status unknown",
        read_only=True,
    )
    sr_reboot_time = declare(
        Stringout, "SR_rebootTime", "When settings were restored", value="", read_only=True
    )
    sr_0_name = declare(
        Stringout, "SR_0_Name", "The set of settings", value="Not In Use", read_only=True
    )
    sr_0_state = declare(
        Longout, "SR_0_State", "12: saved when something has changed", value=0, read_only=True
    )
    sr_0_status = declare(
        Mbbo,
        "SR_0_Status",
        "How saving this set goes",
        value=0,
        read_only=True,
        states=_STATES,
        **_SEVERITIES,
    )
    sr_0_status_str = declare(
        Stringout,
        "SR_0_StatusStr",
        "How saving this set goes, in words",
        value="Status unknown",
        read_only=True,
    )
    sr_0_time = declare(
        Stringout, "SR_0_Time", "When this set was saved", value="Not yet saved", read_only=True
    )
