"""Coroutines that begin at once: what waits goes on as a task, with errors and cancellation."""

from __future__ import annotations

import asyncio

import pytest

from tomostream_ioc.epics.eager import run_eagerly


def test_what_does_not_wait_has_ended_at_once() -> None:
    done: list[int] = []

    async def work() -> None:
        done.append(1)

    async def main() -> None:
        assert run_eagerly(work()) is None
        assert done == [1]

    asyncio.run(main())


def test_what_waits_goes_on_as_a_task() -> None:
    done: list[object] = []

    async def work(future: asyncio.Future[int], event: asyncio.Event) -> None:
        done.append("begun")
        done.append(await future)
        await asyncio.sleep(0)
        await event.wait()
        async with asyncio.timeout(5.0):
            await asyncio.sleep(0.001)
        done.append(asyncio.current_task() is not None)

    async def main() -> None:
        future, event = asyncio.get_running_loop().create_future(), asyncio.Event()
        task = run_eagerly(work(future, event))
        assert task is not None
        assert done == ["begun"]
        future.set_result(7)
        event.set()
        await task
        assert done == ["begun", 7, True]

    asyncio.run(main())


def test_errors_and_cancellation_reach_the_coroutine_and_who_waits() -> None:
    seen: list[str] = []

    async def work(future: asyncio.Future[None]) -> None:
        try:
            await future
        except ValueError as error:
            seen.append(str(error))
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    async def fail(first: bool) -> None:
        if not first:
            await asyncio.sleep(0)
        raise KeyError("it")

    async def main() -> None:
        future = asyncio.get_running_loop().create_future()
        task = run_eagerly(work(future))
        assert task is not None
        future.set_exception(ValueError("no"))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert seen == ["no", "cancelled"]
        with pytest.raises(KeyError):
            run_eagerly(fail(first=True))
        later = run_eagerly(fail(first=False))
        assert later is not None
        with pytest.raises(KeyError):
            await later

    asyncio.run(main())
