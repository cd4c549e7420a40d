"""Coroutines that begin at once, and become tasks only where they have to wait.

As `asyncio.eager_task_factory` does it from Python 3.12 on: most puts never wait, and a task costs
a turn of the event loop, in which another thread may take the interpreter.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Generator
from typing import Any


def run_eagerly(coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None] | None:
    """Run it as far as it goes; the task of what is left, None where it has ended.

    Raises what it raises before it waits. Up to there it is in no task of its own, so it can't
    use asyncio.timeout or a TaskGroup before it has waited for something.
    """
    try:
        awaited = coroutine.send(None)
    except StopIteration:
        return None
    return asyncio.get_running_loop().create_task(_rest(coroutine, awaited))


async def _rest(coroutine: Coroutine[Any, Any, None], awaited: Any) -> None:
    await _Rest(coroutine, awaited)


class _Rest:
    """Waits for what the coroutine waits for already, and goes on with it."""

    def __init__(self, coroutine: Coroutine[Any, Any, None], awaited: Any):
        self._coroutine, self._awaited = coroutine, awaited

    def __await__(self) -> Generator[Any, Any, None]:
        awaited = self._awaited
        while True:
            try:
                try:
                    value = yield awaited
                except BaseException as error:  # noqa: BLE001 - it is for the coroutine
                    awaited = self._coroutine.throw(error)
                else:
                    awaited = self._coroutine.send(value)
            except StopIteration:
                return
