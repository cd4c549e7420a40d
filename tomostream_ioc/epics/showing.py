"""Values of the server's own in its records."""

from __future__ import annotations

import logging
from typing import Any

from tomostream_ioc.epics.record import Record
from tomostream_ioc.epics.wire import PutError

log = logging.getLogger(__name__)


async def show(record: Record, value: Any) -> None:
    """Write what has changed; what the record can't hold is logged."""
    if record.value == value:
        return
    try:
        await record.write(value)
    except PutError as refusal:
        log.warning("%s can't show %r: %s", record.pvname, value, refusal)
