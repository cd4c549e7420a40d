"""The updates that wait for one client: bounded, in order, the newest always there."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from tomostream_ioc.epics.updates import Updates


@dataclass(frozen=True)
class Update:
    subscriptionid: int
    value: int

    def __len__(self) -> int:
        return 1000


def taken(updates: Updates) -> list[Update]:
    async def all_of_them() -> list[Update]:
        found: list[Update] = []
        while len(updates):
            found += await updates.take()
        return found

    return asyncio.run(all_of_them())


def test_updates_come_in_order_and_in_batches() -> None:
    updates = Updates()
    sent = [Update(number % 3, number) for number in range(200)]
    for update in sent:
        updates.add(update)
    assert 60 < len(asyncio.run(updates.take())) < 70  # 64 kB
    assert taken(updates) == sent[66:]
    assert updates.left_out == 0


def test_the_oldest_with_a_successor_is_left_out() -> None:
    updates = Updates(most_waiting=10)
    updates.add(Update(7, 0))  # the only one of its monitor
    for number in range(1000):
        updates.add(Update(1, number))
    found = taken(updates)
    assert len(found) == 10
    assert Update(7, 0) in found
    assert [u.value for u in found if u.subscriptionid == 1] == list(range(991, 1000))
    assert updates.left_out == 991


def test_each_of_many_monitors_keeps_its_newest() -> None:
    updates = Updates(most_waiting=10)
    for round_ in range(5):
        for monitor in range(50):
            updates.add(Update(monitor, round_))
    found = taken(updates)
    assert len(found) == 50
    assert {u.subscriptionid: u.value for u in found} == dict.fromkeys(range(50), 4)


def test_cancelled_monitors_are_forgotten() -> None:
    updates = Updates()
    for number in range(6):
        updates.add(Update(number % 2, number))
    updates.forget(0)
    assert [u.value for u in taken(updates)] == [1, 3, 5]
    updates.add(Update(3, 1))
    assert updates.clear() == {3}
    assert len(updates) == 0
