"""What the operating system lets one process have: open files, of which each client takes one."""

from __future__ import annotations

import logging
import resource

log = logging.getLogger(__name__)

#: 1000 clients over CA and as many over PVA, and what the program itself has open
WANTED_FILES = 4096


def raise_file_limit(wanted: int = WANTED_FILES) -> int:
    """Let this process open ``wanted`` files if it may; returns how many it can.

    Many systems start processes with 1024. Where that can't be raised enough, a log line says so.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return soft
    new = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (new, hard))
    except (ValueError, OSError) as error:
        log.warning(
            "Open files stay limited to %d, as many clients fit less some 60: %s", soft, error
        )
        return soft
    if new < wanted:
        log.warning(
            "At most %d files can be open (ulimit -Hn), and each client takes one; %d are wanted",
            new,
            wanted,
        )
    return new
