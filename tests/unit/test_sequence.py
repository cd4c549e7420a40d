"""Unique ids: gaps, disorder, duplicates, wraps and restarts, counted exactly."""

import numpy as np
import pytest

from tomostream_ioc.model.sequence import Order, SequenceTracker


def follow(ids, tracker=None):
    tracker = tracker or SequenceTracker()
    placed = [tracker.place(unique_id) for unique_id in ids]
    return placed, sum(p.missed for p in placed), [p.order for p in placed]


def test_a_stream_in_order_misses_nothing():
    placed, missed, orders = follow(range(1, 1000))
    assert missed == 0
    assert set(orders) == {Order.NEW}
    assert [p.index for p in placed] == list(range(1, 1000))


def test_gap_is_counted_and_a_late_frame_takes_it_back():
    placed, missed, orders = follow([1, 2, 6, 4, 7, 3])
    assert missed == 1  # 5 never came
    assert orders == [Order.NEW, Order.NEW, Order.NEW, Order.LATE, Order.NEW, Order.LATE]
    assert [p.index for p in placed] == [1, 2, 6, 4, 7, 3]


def test_duplicates_of_new_and_of_late_frames():
    _, missed, orders = follow([1, 2, 2, 5, 3, 3, 4, 5, 6])
    assert missed == 0
    assert orders.count(Order.DUPLICATE) == 3
    assert orders.count(Order.LATE) == 2


@pytest.mark.parametrize(("last", "first"), [(65535, 0), (65535, 1)])
def test_sixteen_bit_counter_wraps_without_a_gap(last, first):
    ids = [*range(65530, last + 1), *range(first, 10), *range(10, last + 1), *range(first, 5)]
    placed, missed, orders = follow(ids)
    assert missed == 0
    assert set(orders) == {Order.NEW}
    assert [p.index for p in placed] == list(range(65530, 65530 + len(ids)))


def test_frames_lost_at_a_wrap_are_counted():
    _, missed, _ = follow([65533, 65534, 2, 3])
    assert missed == 3  # 65535, 0, 1


def test_late_frame_from_before_a_wrap():
    placed, missed, orders = follow([65533, 65535, 0, 65534, 1])
    assert missed == 0
    assert orders[3] is Order.LATE
    assert [p.index for p in placed] == [65533, 65535, 65536, 65534, 65537]


def test_signed_32_bit_counter_goes_negative_without_a_gap():
    ids = np.arange(2**31 - 5, 2**31 + 5, dtype=np.int64).astype(np.int32)
    placed, missed, _ = follow([int(i) for i in ids])
    assert missed == 0
    assert placed[-1].index - placed[0].index == 9


def test_31_bit_counter_wraps_to_zero():
    placed, missed, _ = follow([2**31 - 2, 2**31 - 1, 0, 1])
    assert missed == 0
    assert placed[-1].index == 2**31 + 1


def test_jump_far_back_is_a_restart_and_no_gap():
    placed, missed, orders = follow([1000, 1001, 1, 2, 3])
    assert missed == 0
    assert orders == [Order.NEW, Order.NEW, Order.RESTART, Order.NEW, Order.NEW]
    assert placed[-1].index == 3


def test_restart_of_a_short_stream_is_found_after_a_run_of_duplicates():
    _, missed, orders = follow([*range(1, 51), *range(1, 31)])
    assert missed == 0
    assert orders.count(Order.RESTART) == 1
    assert orders[-1] is Order.NEW


def test_repeated_state_after_a_reconnection_is_no_duplicate_but_a_gap_counts():
    tracker = SequenceTracker()
    follow([1, 2, 3], tracker)
    assert tracker.place(3, reconnected=True).order is Order.REPEATED_STATE
    assert tracker.place(6).missed == 2


def test_lower_id_after_a_reconnection_is_a_detector_that_restarted():
    tracker = SequenceTracker()
    follow(range(1, 30), tracker)
    assert tracker.place(1, reconnected=True).order is Order.RESTART
    assert tracker.place(2).order is Order.NEW


@pytest.mark.parametrize("seed", range(20))
def test_random_loss_disorder_and_duplicates_are_counted_exactly(seed):
    rng = np.random.default_rng(seed)
    sent = np.arange(65000, 67000)
    # without the 0 behind 65535 nothing tells a lost frame from a counter that has no 0
    kept = sent[(rng.random(sent.size) > 0.05) | (sent == sent[0]) | (sent == 65536)]
    order = np.argsort(np.arange(kept.size) + rng.uniform(0, 5, kept.size), kind="stable")
    stream = list(kept[order])
    start = stream.index(sent[0])
    stream = [sent[0], *stream[:start], *stream[start + 1 :]]  # the first id opens the stream
    copies = rng.choice(len(stream), 40, replace=False)
    for position in sorted(copies, reverse=True):
        stream.insert(position + 1 + int(rng.integers(0, 3)), stream[position])
    expected_late = 0
    highest = -1
    seen = set()
    for unique_id in stream:
        if unique_id not in seen and unique_id < highest:
            expected_late += 1
        seen.add(unique_id)
        highest = max(highest, unique_id)
    _, missed, orders = follow([int(i) & 0xFFFF for i in stream])
    assert missed == highest - sent[0] + 1 - kept.size
    assert orders.count(Order.DUPLICATE) == 40
    assert orders.count(Order.LATE) == expected_late
