"""A reader's subscription through every event that a server can cause, on a context of its own."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from p4p.client.raw import Disconnected, Finished, RemoteError
from pva_helpers import Recorder
from support.processes import wait_for

from tomostream_ioc.epics.ntndarray import image_value, mono_attributes
from tomostream_ioc.epics.pva_image import ImageReader


class FakeSubscription:
    """Gives out what the test puts in."""

    def __init__(self, wake: Callable[[], None], request: str):
        self.request = request
        self.closed = False
        self._wake = wake
        self._events: deque[Any] = deque()

    def put(self, *events: Any) -> None:
        self._events.extend(events)
        self._wake()

    def pop(self) -> Any:
        return self._events.popleft() if self._events else None

    def close(self) -> None:
        self.closed = True


class FakeContext:
    def __init__(self) -> None:
        self.subscriptions: list[FakeSubscription] = []

    def monitor(self, _name: str, handler: Callable[[], None], request: str) -> FakeSubscription:
        self.subscriptions.append(FakeSubscription(handler, request))
        return self.subscriptions[-1]


def frame(unique_id: int, side: int = 4) -> Any:
    image = np.full((side, side), unique_id, np.float32)
    return image_value(image, unique_id, attributes=mono_attributes())


@pytest.fixture
def context() -> FakeContext:
    return FakeContext()


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def reader(context: FakeContext, recorder: Recorder) -> Iterator[ImageReader]:
    # 64 bytes a 4 x 4 frame: a budget for 1024 of them, and for 16 of 32 x 32
    made = ImageReader(context, "image", recorder, 64 * 1024, 1 << 20)  # type: ignore[arg-type]
    made.start()
    yield made
    made.close()
    assert all(subscription.closed for subscription in context.subscriptions)


@pytest.mark.parametrize("end", [Finished("done"), RemoteError("no")])
def test_an_ended_subscription_is_made_anew(
    reader: ImageReader, context: FakeContext, recorder: Recorder, end: Exception
):
    context.subscriptions[0].put(frame(1), end)
    wait_for(lambda: len(context.subscriptions) == 2, what="a new subscription")
    assert context.subscriptions[0].closed
    context.subscriptions[1].put(frame(2))
    wait_for(lambda: recorder.ids == [1, 2], what="frames go on")
    assert [state for *_, state in recorder.connections] == [True, False, True]


def test_a_lost_connection_keeps_the_subscription(
    reader: ImageReader, context: FakeContext, recorder: Recorder
):
    context.subscriptions[0].put(frame(1), frame(2), Disconnected("gone"), frame(3), frame(4))
    wait_for(lambda: recorder.ids == [1, 2, 3, 4], what="frames go on")
    assert [f.initial for f in recorder.frames] == [True, False, True, False]
    assert len(context.subscriptions) == 1


def test_a_larger_frame_changes_the_depth_and_none_is_lost_or_doubled(
    reader: ImageReader, context: FakeContext, recorder: Recorder
):
    old = context.subscriptions[0]
    assert "queueSize=1024" in old.request
    old.put(*(frame(k, 32) for k in range(1, 4)))
    wait_for(lambda: len(context.subscriptions) == 2, what="another depth")
    new = context.subscriptions[1]
    assert "queueSize=16]" in new.request
    old.put(frame(4, 32), frame(5, 32))
    wait_for(lambda: recorder.ids == [1, 2, 3, 4, 5], what="the old one goes on")
    assert not old.closed
    new.put(*(frame(k, 32) for k in range(4, 9)))
    wait_for(lambda: recorder.ids[-1] == 8, what="the new one takes over")
    assert recorder.ids == [1, 2, 3, 4, 5, 6, 7, 8]
    assert old.closed
    new.put(frame(8, 32))  # what the server repeats later on is for the run to see
    wait_for(lambda: len(recorder.ids) == 9, what="a repeat")
    assert not any(f.initial for f in recorder.frames[1:])


def test_senders_that_do_not_count_survive_a_change_of_depth(
    reader: ImageReader, context: FakeContext, recorder: Recorder
):
    context.subscriptions[0].put(frame(0, 32))
    wait_for(lambda: len(context.subscriptions) == 2, what="another depth")
    new = context.subscriptions[1]
    new.put(frame(0, 32), frame(0, 32), frame(0, 32))
    wait_for(lambda: len(recorder.frames) == 3, what="all but the repeated one")


def test_connection_lost_while_the_depth_changes(
    reader: ImageReader, context: FakeContext, recorder: Recorder
):
    old = context.subscriptions[0]
    old.put(frame(1, 32))
    wait_for(lambda: len(context.subscriptions) == 2, what="another depth")
    new = context.subscriptions[1]
    old.put(Finished("done"))
    new.put(Disconnected("gone"), frame(1, 32), frame(2, 32))
    wait_for(lambda: recorder.ids == [1, 1, 2], what="frames of the new server")
    time.sleep(1.2)  # no third subscription follows the end of the old one
    assert len(context.subscriptions) == 2
    assert [state for *_, state in recorder.connections] == [True, False, True]
