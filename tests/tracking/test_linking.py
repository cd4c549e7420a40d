"""Links: trackpy's, at once or frame by frame, bounded where trackpy gives up or goes on."""

import numpy as np
import pandas as pd
import pytest
import trackpy
from trackpy.linking.utils import SubnetOversizeException

from tomostream_ioc.errors import TrackingError
from tomostream_ioc.tracking import OnlineLinker, ScanGrid, link, link_and_count


@pytest.fixture(autouse=True)
def _quiet():
    trackpy.quiet()


def walk(seed, n_frames=30, n=40, missing=0.15, step=1.0, size=300.0):
    """Particles that wander, and are not found in each frame; one frame is empty."""
    rng = np.random.default_rng(seed)
    place = rng.uniform(0, size, (n, 2))
    parts = []
    for frame in range(1, n_frames + 1):
        place = place + rng.normal(0, step, place.shape)
        found = rng.uniform(size=n) > missing
        if frame == 11:
            found[:] = False
        part = pd.DataFrame(place[found], columns=["y", "x"])
        part["frame"] = frame
        part["mass"] = rng.uniform(1, 2, len(part))
        parts.append(part.sample(frac=1, random_state=frame))
    return pd.concat(parts, ignore_index=True)


def assert_same_tracks(left, right):
    """Equal partitions of the rows: each label of one side goes with one label of the other."""
    assert len(left) == len(right)
    pairs = set(zip(left, right, strict=True))
    assert len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})


def theirs(table, *arguments, **keywords):
    """trackpy's labels in the order of the rows of ``table``."""
    return trackpy.link(table, *arguments, **keywords)["particle"].sort_index().to_numpy()


def online(table, *arguments, **keywords):
    linker = OnlineLinker(*arguments, **keywords)
    labels = pd.Series(-7, index=table.index)
    for frame, part in table.groupby("frame"):
        labels[part.index] = linker.link(part, int(str(frame)))["particle"]
    return labels.to_numpy(), linker


@pytest.mark.parametrize("memory", [0, 1, 3, 20])
@pytest.mark.parametrize("seed", [0, 1])
def test_batch_online_and_trackpy_agree(memory, seed):
    table = walk(seed)
    wanted = theirs(table, 6, memory=memory)
    batch = link(table, 6, memory)
    assert_same_tracks(batch["particle"].sort_index(), wanted)
    labels, linker = online(table, 6, memory)
    assert_same_tracks(labels, wanted)
    assert linker.counts.tracks == len(set(wanted))
    assert linker.counts.large_groups == 0


@pytest.mark.parametrize(
    "keywords",
    [
        {"adaptive_stop": 1.0, "adaptive_step": 0.9},
        {"link_strategy": "nonrecursive"},
        {"link_strategy": "drop"},
        {"predictor": None},
    ],
)
def test_trackpys_keywords_do_as_they_do_there(keywords):
    table = walk(3)
    assert_same_tracks(
        link(table, 6, 2, **keywords)["particle"].sort_index(),
        theirs(table, 6, memory=2, **keywords),
    )


def test_search_range_per_axis():
    table = walk(4)
    wanted = theirs(table, (4, 9), memory=2)
    assert_same_tracks(link(table, (4, 9), 2)["particle"].sort_index(), wanted)


def test_table_keeps_rows_and_columns_and_is_sorted_by_frame():
    table = walk(5).sample(frac=1, random_state=0).astype({"frame": np.float64})
    before = table.copy()
    linked = link(table, 6, 1)
    pd.testing.assert_frame_equal(table, before)
    assert [*linked.columns] == [*table.columns, "particle"]
    assert linked["frame"].is_monotonic_increasing
    assert linked["frame"].dtype == linked["particle"].dtype == np.int64
    kept = linked.drop(columns="particle").sort_index().astype({"frame": np.float64})
    pd.testing.assert_frame_equal(kept, table.sort_index())


def test_tracks_count_from_0_in_the_order_they_begin():
    linker = OnlineLinker(5.0)
    assert linker.add(np.array([[0.0, 0], [50, 50]]), 1).tolist() == [0, 1]
    assert linker.add(np.array([[90.0, 90], [50, 51], [1, 0]]), 2).tolist() == [2, 1, 0]


@pytest.mark.parametrize(("gap", "same"), [(1, True), (3, True), (4, True), (5, False)])
def test_skipped_frames_count_towards_memory(gap, same):
    """memory 3 bridges 3 missing frames, whether they come as empty ones or not at all."""
    there = np.array([[10.0, 10.0]])
    skipping, told = OnlineLinker(5.0, 3), OnlineLinker(5.0, 3)
    skipping.add(there, 1)
    told.add(there, 1)
    for frame in range(2, 1 + gap):
        assert told.add(np.empty((0, 2)), frame).tolist() == []
    wanted = [0] if same else [1]
    assert skipping.add(there, 1 + gap).tolist() == told.add(there, 1 + gap).tolist() == wanted
    assert skipping.counts.skipped_frames == gap - 1
    assert told.counts.skipped_frames == 0


def test_a_gap_of_any_length_takes_no_time():
    linker = OnlineLinker(5.0, 2)
    linker.add(np.array([[1.0, 1.0]]), 1)
    assert linker.add(np.array([[1.0, 1.0]]), 10**12).tolist() == [1]
    assert linker.counts.skipped_frames == 10**12 - 2


def test_first_frames_may_be_empty():
    linker = OnlineLinker(5.0, 1)
    assert linker.add(np.empty((0, 2)), 1).tolist() == []
    assert linker.add(np.empty((0, 2)), 2).tolist() == []
    assert linker.add(np.array([[1.0, 1.0]]), 3).tolist() == [0]
    assert linker.add(np.array([[1.0, 2.0]]), 4).tolist() == [0]


def test_a_table_without_rows():
    linked, counts = link_and_count(walk(0).iloc[:0], 5)
    assert len(linked) == counts.frames == counts.tracks == 0
    assert "particle" in linked.columns


def test_positions_that_are_not_finite_stay_unlinked():
    table = walk(6)
    wanted = theirs(table, 6, memory=2)
    bad = pd.DataFrame(
        {"y": [np.nan, 5.0, np.inf], "x": [1.0, np.nan, 2.0], "frame": [1, 7, 11], "mass": 1.0}
    )
    both = pd.concat([table, bad], ignore_index=True)
    linked, counts = link_and_count(both, 6, 2)
    labels = linked["particle"].sort_index().to_numpy()
    assert labels[-3:].tolist() == [-1, -1, -1]
    assert counts.unlinked_peaks == 3
    assert_same_tracks(labels[:-3], wanted)


def test_two_linkers_at_work_do_not_share_a_count():
    table, other = walk(7), walk(8)
    one, two = OnlineLinker(6, 2), OnlineLinker(6, 2)
    labels, others = pd.Series(-7, table.index), pd.Series(-7, other.index)
    for frame in range(1, 31):
        part = table.loc[table["frame"] == frame]
        second = other.loc[other["frame"] == frame]
        labels[part.index] = one.link(part, frame)["particle"]
        if frame == 15:
            others[:] = -7
            two = OnlineLinker(6, 2)
        others[second.index] = two.link(second, frame)["particle"]
    assert_same_tracks(labels, theirs(table, 6, memory=2))
    late = other[other["frame"] >= 15]
    assert_same_tracks(others[late.index], theirs(late, 6, memory=2))


def crowd(n, seed, spread):
    """Two frames of n peaks, so dense that they all compete."""
    rng = np.random.default_rng(seed)
    first = rng.uniform(0, spread, (n, 2))
    second = first + rng.normal(0, 0.2, first.shape)
    order = rng.permutation(n)
    return first, second[order], order


def test_a_crowd_that_trackpy_refuses_is_linked():
    n = 200
    first, second, order = crowd(n, 0, 20.0)
    rows = pd.DataFrame(np.vstack([first, second]), columns=["y", "x"])
    rows["frame"] = np.repeat([1, 2], n)
    with pytest.raises(SubnetOversizeException):
        trackpy.link(rows, 5)
    linker = OnlineLinker(5)
    linker.add(first, 1)
    labels = linker.add(second, 2)
    assert linker.counts.large_groups == 1
    assert linker.counts.broken_groups == 0
    # each goes on as itself but for a few that came closer to another one
    assert np.mean(labels == order) > 0.9
    assert linker.add(np.array([[10.0, 10.0]]), 3).size == 1


@pytest.mark.parametrize("seed", [0, 1, 3, 4, 5])
def test_large_groups_have_the_least_sum_that_trackpy_finds_too(seed):
    """18 peaks in a row compete: more than we leave to trackpy, fewer than it refuses."""
    rng = np.random.default_rng(seed)
    first = np.column_stack([np.arange(18) * 1.2, rng.uniform(0, 0.6, 18)])
    second = first + rng.normal(0, 0.4, first.shape)
    keep = rng.uniform(size=18) > 0.15
    rows = pd.DataFrame(np.vstack([first, second[keep]]), columns=["y", "x"])
    rows["frame"] = [1] * 18 + [2] * int(keep.sum())
    linked, counts = link_and_count(rows, 2.0, 0)
    assert counts.large_groups == 1
    assert_same_tracks(linked["particle"].sort_index(), theirs(rows, 2.0))


def test_a_crowd_beyond_the_bound_is_left_unlinked_and_counted(monkeypatch):
    monkeypatch.setattr("tomostream_ioc.tracking.linking.MAX_GROUP", 300)
    first, second, _ = crowd(200, 1, 20.0)
    alone = np.array([[500.0, 500.0]])
    linker = OnlineLinker(5)
    before = linker.add(np.vstack([first, alone]), 1)
    after = linker.add(np.vstack([second, alone]), 2)
    assert linker.counts.broken_groups == 1
    assert after[-1] == before[-1] == 200
    assert not set(after[:-1]) & set(before)
    assert len(set(after)) == 201
    # and the linker goes on
    assert linker.add(alone, 3).tolist() == [200]


def test_adaptive_search_that_gives_up_is_linked_all_the_same():
    first, second, order = crowd(150, 2, 6.0)
    linker = OnlineLinker(5, adaptive_stop=4.9, adaptive_step=0.99)
    linker.add(first, 1)
    labels = linker.add(second, 2)
    assert linker.counts.large_groups == 1
    assert np.mean(labels == order) > 0.5


def test_memory_comes_from_the_grid():
    snaked, straight = ScanGrid((12, 15), snaking=(False, True)), ScanGrid((12, 15))
    assert OnlineLinker(5, grid=snaked).memory == 28
    assert OnlineLinker(5, grid=straight).memory == 15
    assert OnlineLinker(5, grid=snaked, memory=2).memory == 2
    assert OnlineLinker(5, grid=ScanGrid((90,))).memory == OnlineLinker(5).memory == 0


@pytest.mark.parametrize("snaking", [False, True])
def test_one_track_per_spot_on_a_grid(snaking):
    """A spot per column, as narrow as can be: with the grid's memory no track breaks."""
    grid = ScanGrid((6, 8), snaking=(False, snaking))
    rows = []
    for frame in range(1, 49):
        _, column = grid.index(frame)
        rows.append({"y": 50.0 * column, "x": 0.0, "frame": frame})
    table = pd.DataFrame(rows)
    assert len(set(link(table, 5, grid=grid)["particle"])) == 8
    assert len(set(link(table, 5)["particle"])) > 8


@pytest.mark.parametrize(
    ("work", "words"),
    [
        (lambda: OnlineLinker(0), "search_range is 0"),
        (lambda: OnlineLinker((5, np.nan)), "search_range"),
        (lambda: OnlineLinker(5, -1), "memory is -1"),
        (lambda: OnlineLinker(5, 1.5), "memory is 1.5"),  # pyright: ignore[reportArgumentType]
        (lambda: OnlineLinker(5, nonsense=1), "nonsense"),
        (lambda: OnlineLinker(5, link_strategy="guess"), "guess"),
        (lambda: OnlineLinker(5, adaptive_stop=-1), "positive"),
        (lambda: OnlineLinker(5).add(np.zeros(3), 1), "Positions"),
        (lambda: OnlineLinker((5, 5)).add(np.zeros((3, 3)), 1), "Positions"),
        (lambda: link(pd.DataFrame({"y": [1.0], "frame": [1]}), 5), "no column 'x'"),
        (lambda: link(pd.DataFrame({"y": [1.0], "x": [1.0]}), 5), "no column 'frame'"),
        (
            lambda: link(pd.DataFrame({"y": [1.0], "x": [1.0], "frame": [np.nan]}), 5),
            "not finite",
        ),
    ],
)
def test_what_can_not_be_linked_is_said(work, words):
    with pytest.raises(TrackingError, match=words):
        work()


def test_frames_come_in_order():
    linker = OnlineLinker(5)
    linker.add(np.zeros((1, 2)), 4)
    for frame in (4, 3):
        with pytest.raises(TrackingError, match=f"Frame {frame} came after frame 4"):
            linker.add(np.zeros((1, 2)), frame)
    assert linker.add(np.zeros((1, 2)), 5).tolist() == [0]
