"""A loop that waits lends its turn: who borrows it is one of its callbacks, in another thread."""

import asyncio
import socket
import threading
import time

import pytest
from support.processes import wait_for

from tomostream_ioc.epics.lendable_loop import LendableLoop

_LIMIT_S = 10.0


@pytest.fixture
def loop():
    """A loop that runs in a thread of its own, without anything to do."""
    loop = LendableLoop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    yield loop
    loop.call_soon_threadsafe(loop.stop)
    thread.join(_LIMIT_S)
    loop.close()


def borrow(loop, function, *arguments):
    """As soon as the loop waits."""
    deadline = time.monotonic() + _LIMIT_S
    while not loop.borrow(function, *arguments):
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_the_borrower_runs_at_once_on_the_loop_in_its_own_thread(loop):
    seen = []
    borrow(loop, lambda: seen.append((asyncio.get_running_loop(), threading.current_thread())))
    assert seen == [(loop, threading.current_thread())]
    with pytest.raises(RuntimeError):
        asyncio.get_running_loop()  # given back


def test_what_the_borrower_leaves_to_the_loop_is_done_there_at_once(loop):
    done = threading.Event()
    order = []

    async def rest():
        order.append(threading.current_thread())
        await asyncio.sleep(0.01)
        order.append(threading.current_thread())
        done.set()

    loop.call_soon_threadsafe(loop.call_later, 3600.0, order.clear)  # it waits for very long
    borrow(loop, lambda: asyncio.get_running_loop().create_task(rest()))
    assert done.wait(_LIMIT_S)
    done.clear()
    borrow(loop, lambda: loop.call_later(0.01, done.set))
    assert done.wait(_LIMIT_S)
    assert len(order) == 2
    assert threading.current_thread() not in order


def test_what_was_left_to_the_loop_before_an_error_is_done_at_once(loop):
    done = threading.Event()

    def fail():
        loop.call_soon(done.set)
        raise ValueError("afterwards")

    with pytest.raises(ValueError, match="afterwards"):
        borrow(loop, fail)
    assert done.wait(_LIMIT_S)
    borrow(loop, lambda: None)  # the turn was given back


def test_the_borrower_may_end_the_loop():
    """The loop is closed at once by who ran it: nothing may be called on it after that."""
    for _ in range(100):
        other = LendableLoop()
        end = other.create_future()

        def run(other=other, end=end):
            other.run_until_complete(end)
            other.close()

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        borrow(other, end.set_result, None)
        thread.join(_LIMIT_S)
        assert not thread.is_alive()
        assert other.is_closed()


def test_files_may_be_watched_anew_by_the_borrower_while_they_wake_the_loop(loop):
    come = threading.Event()
    by_the_old_reader = []
    ours, theirs = socket.socketpair()

    def watch_anew():
        theirs.send(b"x")  # the loop wakes up for the old reader, and has to wait for its turn
        time.sleep(0.05)
        loop.remove_reader(ours)
        loop.add_reader(ours, read)

    def read():
        ours.recv(1)
        come.set()

    with ours, theirs:
        borrow(loop, loop.add_reader, ours, by_the_old_reader.append, 1)
        borrow(loop, watch_anew)
        assert come.wait(_LIMIT_S)
        borrow(loop, loop.remove_reader, ours)
    assert by_the_old_reader == []


def test_a_busy_loop_lends_nothing(loop):
    began, go_on, called = threading.Event(), threading.Event(), []

    def work():
        began.set()
        go_on.wait(_LIMIT_S)

    loop.call_soon_threadsafe(work)
    assert began.wait(_LIMIT_S)
    assert not loop.borrow(called.append, 1)
    go_on.set()
    borrow(loop, called.append, 2)
    assert called == [2]


def test_a_loop_does_not_lend_to_itself(loop):
    called = []

    async def ask():
        return loop.borrow(called.append, 1)

    assert asyncio.run_coroutine_threadsafe(ask(), loop).result(_LIMIT_S) is False
    assert called == []


def test_a_loop_that_does_not_run_lends_nothing():
    loop = LendableLoop()
    called = []
    assert not loop.borrow(called.append, 1)
    loop.run_until_complete(asyncio.sleep(0.01))
    assert not loop.borrow(called.append, 2)
    loop.close()
    assert not loop.borrow(called.append, 3)
    assert called == []


def test_a_loop_in_debug_mode_lends_nothing(loop):
    borrow(loop, lambda: None)  # it is one that lends
    loop.set_debug(True)
    called = []
    assert not any(loop.borrow(called.append, 1) for _ in range(100))
    assert called == []
    loop.set_debug(False)
    borrow(loop, lambda: None)


def test_two_are_never_at_it_together(loop):
    inside, together, count = [], [], 0

    def work():
        nonlocal count
        inside.append(None)
        before = count
        time.sleep(0)  # the other threads may have the interpreter
        together.append(len(inside))
        count = before + 1
        inside.pop()

    async def on_the_loop():
        for _ in range(300):
            work()
            await asyncio.sleep(0.0005)

    def borrower():
        for _ in range(300):
            borrow(loop, work)

    threads = [threading.Thread(target=borrower) for _ in range(3)]
    on_loop = asyncio.run_coroutine_threadsafe(on_the_loop(), loop)
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    on_loop.result(60)
    assert set(together) == {1}
    assert count == 4 * 300


def test_who_borrows_without_end_does_not_keep_the_loop_from_its_turns(loop):
    ticks, over = [], threading.Event()

    async def tick():
        while not over.is_set():
            ticks.append(time.monotonic())
            await asyncio.sleep(0.01)

    def borrower():
        while not over.is_set():
            loop.borrow(time.sleep, 0.001)

    ticking = asyncio.run_coroutine_threadsafe(tick(), loop)
    threads = [threading.Thread(target=borrower) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        wait_for(lambda: len(ticks) > 10, 30)
    finally:
        over.set()
        for thread in threads:
            thread.join(_LIMIT_S)
    ticking.result(_LIMIT_S)
