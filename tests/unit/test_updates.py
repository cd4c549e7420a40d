"""The updates that wait for one client: bounded, in order, the newest always there."""

from __future__ import annotations

import struct

from tomostream_ioc.epics.updates import Updates

UPDATE = struct.Struct(">II992x")  # monitor, value: 1000 bytes


def add(updates: Updates, monitor: int, value: int) -> None:
    updates.add(monitor, UPDATE.pack(monitor, value))


def taken(updates: Updates) -> list[tuple[int, ...]]:
    """Monitor and value of all that waits."""
    found: list[tuple[int, ...]] = []
    while updates:
        found += UPDATE.iter_unpack(updates.take())
    return found


def test_updates_come_in_order_and_in_batches() -> None:
    updates = Updates()
    sent = [(number % 3, number) for number in range(200)]
    for update in sent:
        add(updates, *update)
    first = list(UPDATE.iter_unpack(updates.take()))
    assert 60 < len(first) < 70  # 64 kB
    assert [*first, *taken(updates)] == sent
    assert updates.take() == b""
    assert updates.left_out == 0


def test_the_oldest_with_a_successor_is_left_out() -> None:
    updates = Updates(most_waiting=10)
    add(updates, 7, 0)  # the only one of its monitor
    for number in range(1000):
        add(updates, 1, number)
    found = taken(updates)
    assert len(found) == 10
    assert (7, 0) in found
    assert [value for monitor, value in found if monitor == 1] == list(range(991, 1000))
    assert updates.left_out == 991


def test_each_of_many_monitors_keeps_its_newest() -> None:
    updates = Updates(most_waiting=10)
    for round_ in range(5):
        for monitor in range(50):
            add(updates, monitor, round_)
    found = taken(updates)
    assert len(found) == 50
    assert sorted(found) == [(monitor, 4) for monitor in range(50)]


def test_cancelled_monitors_are_forgotten() -> None:
    updates = Updates()
    for number in range(6):
        add(updates, number % 2, number)
    updates.forget(0)
    assert [value for _, value in taken(updates)] == [1, 3, 5]
    add(updates, 3, 1)
    assert updates.clear() == {3}
    assert len(updates) == 0
