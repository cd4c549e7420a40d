"""What the operating system lets one process have: open files, of which each client takes one, and
memory.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import resource
from collections.abc import Callable

log = logging.getLogger(__name__)

#: 1000 clients over CA and as many over PVA, and what the program itself has open
WANTED_FILES = 4096

_LOOK_EVERY_S = 1.0

# options of glibc's mallopt
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
#: as much that is free is kept, and what is larger than the most that glibc allows here is not
_KEPT_BYTES, _LARGEST_KEPT = 512 << 20, 32 << 20
_MALLOC = ((_MMAP_THRESHOLD, _LARGEST_KEPT), (_TRIM_THRESHOLD, _KEPT_BYTES), (_ARENA_MAX, 1))


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


def keep_freed_memory() -> bool:
    """Let the C library keep what frames and slices give back; False where it is another library.

    glibc asks the system for each array anew and returns it soon after: at ten megabytes a frame
    the pages that are cleared again and again cost slices their time. One arena, as the others
    return what is free whatever they are told.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    done = [mallopt(option, value) for option, value in _MALLOC]  # all, also after a refusal
    return all(done)


def give_back_freed_memory() -> bool:
    """Let the C library return what is free now; False where it is another library.

    Takes up to 0.3 s, and holds up who asks for memory meanwhile.
    """
    try:
        malloc_trim = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):
        return False
    malloc_trim(0)
    return True


async def give_back_after_work(is_busy: Callable[[], bool]) -> None:
    """Give back what was freed each time that work has ended; until it is cancelled.

    Of frames that waited in queues much more may be free than malloc was told to keep: what lies
    below anything that is still used is not returned by itself.
    """
    was_busy = False
    while True:
        await asyncio.sleep(_LOOK_EVERY_S)
        busy = is_busy()
        if was_busy and not busy:
            await asyncio.to_thread(give_back_freed_memory)
        was_busy = busy
