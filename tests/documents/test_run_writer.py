"""The writer of runs: what bluesky's own TiledWriter leaves in the database, sooner."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from bluesky_tiled_plugins import TiledWriter
from crystal_scan import BACKGROUND, KEY, PIXELS, frames_at
from database_tables import Tables
from event_model import compose_run
from support.processes import wait_for
from tiled.client.container import Container

from tomostream_ioc.documents import ImageFiles, build_chain, open_database, read_peaks
from tomostream_ioc.documents.background_writer import BackgroundWriter
from tomostream_ioc.documents.database import Database
from tomostream_ioc.documents.derived_run import DerivedRun
from tomostream_ioc.documents.run_writer import RunWriters

SHAPE = (3, 4)
ROOT = {"uid": "root", "shape": list(SHAPE), "snaking": [False, False]}


class Runs:
    """Documents of runs of all kinds, in the order in which they came."""

    def __init__(self):
        self.documents: list[tuple[str, Any]] = []

    def __call__(self, name, doc):
        self.documents.append((name, doc))

    @property
    def uids(self) -> list[str]:
        return [doc["uid"] for name, doc in self.documents if name == "start"]


def scan(n: int = 12):
    """Documents of a scan with images in its events."""
    bundle = compose_run(metadata={"shape": list(SHAPE), "snaking": [False, True]})
    image = {"dtype": "array", "dtype_numpy": "<u2", "shape": [3, *PIXELS], "source": "SIM"}
    number = {"dtype": "number", "dtype_numpy": "<f8", "shape": [], "source": "SIM"}
    described = bundle.compose_descriptor(name="primary", data_keys={KEY: image, "x": number})
    yield "start", bundle.start_doc
    yield "descriptor", described.descriptor_doc
    for i in range(n):
        data = {KEY: frames_at(divmod(i, SHAPE[1])), "x": float(i)}
        yield "event", described.compose_event(data=data, timestamps=dict.fromkeys(data, 1.0 + i))
    yield "stop", bundle.compose_stop()


@pytest.fixture(scope="module")
def derived():
    """What the chain makes of a scan, processed images too, and runs with odder columns."""
    runs = Runs()
    chain = build_chain(
        KEY, np.full(PIXELS, BACKGROUND), diameter=11, search_range=8,
        locate={"percentile": 80, "separation": 15},
    )  # fmt: skip
    for stage in chain.stages:
        stage.subscribe(runs)
    for name, doc in scan():
        chain(name, doc)

    odd = DerivedRun(ROOT, "odd", {}, runs, {})
    rows = np.arange(5)
    columns = {
        "small": rows.astype(np.float32), "byte": rows.astype(np.uint8), "Upper": rows / 3
    }  # fmt: skip
    mixed = {"whole": rows, "yes": rows > 2, "gap": np.where(rows == 1, np.nan, rows)}
    for i in range(3):
        odd.page(columns, 10.0 + rows)
        odd.page(mixed, 10.0 + rows, stream="mixed")
        odd.event({key: column[i] for key, column in mixed.items()}, 20.0 + i, stream="mixed")
    vectors = {"whole": rows, "few": np.arange(10.0).reshape(5, 2), "many": np.ones((5, 40))}
    odd.page(vectors, 3.0, stream="vectors")
    odd.page({"text": np.array(["a", "b"]), "value": np.arange(2)}, 3.0, stream="texts")
    odd.stop("success", "")
    DerivedRun(ROOT, "empty", {}, runs, {}).stop("abort", "no image came")
    return runs


def insert(runs: Runs, db: Database, images, writer) -> None:
    """As the database does it, by this ``writer``."""
    files = ImageFiles(images)
    files.subscribe(lambda name, doc: writer(name, dict(doc)))
    for name, doc in runs.documents:
        files(name, doc)
    assert files.counts.subscriber_errors == files.counts.failed == 0


@pytest.fixture(scope="module")
def both(derived, tmp_path_factory):
    """The same runs in two databases: by TiledWriter, and by the writer here."""
    theirs_at, ours_at, images = (tmp_path_factory.mktemp(n) for n in ("theirs", "ours", "images"))
    with (
        open_database(theirs_at, readable=[images]) as theirs,
        open_database(ours_at, readable=[images]) as ours,
    ):
        # its tables would hold arrays of up to 16 numbers, which SQLite refuses
        writer = TiledWriter(theirs.client, normalizer=None, max_array_size=0)
        insert(derived, theirs, images, writer)
        insert(derived, ours, images, RunWriters(ours.client, normalize=False, followed=False))
        yield theirs, ours


def assert_same(theirs: Any, ours: Any, path: str) -> int:
    """Nodes and all below: metadata, specs, structure, data. Returns how many there were."""
    assert dict(ours.metadata) == dict(theirs.metadata), path
    assert ours.specs == theirs.specs, path
    assert ours.structure_family == theirs.structure_family, path
    if isinstance(theirs, Container):
        assert list(ours) == list(theirs), path
        theirs, ours = (getattr(each, "base", each) for each in (theirs, ours))
        return 1 + sum(assert_same(theirs[k], ours[k], f"{path}/{k}") for k in theirs)
    if hasattr(theirs.structure(), "arrow_schema_decoded"):
        schemas = [each.structure().arrow_schema_decoded for each in (theirs, ours)]
        assert list(schemas[0]) == list(schemas[1]), path
    assert ours.structure() == theirs.structure(), path
    one, other = theirs.read(), ours.read()
    if hasattr(one, "columns"):
        assert list(one.columns) == list(other.columns), path
        assert dict(one.dtypes) == dict(other.dtypes), path
        assert len(one), path
        for column in one:
            if len(np.shape(one[column].iloc[0])):
                one[column], other[column] = map(list, one[column]), map(list, other[column])
        assert one.equals(other), path
    else:
        np.testing.assert_array_equal(np.asarray(other), np.asarray(one), err_msg=path)
    return 1


def test_runs_are_those_of_tiled_writer(both, derived):
    """Column by column, with metadata, specs and structure of each node."""
    theirs, ours = both
    uids = derived.uids
    assert list(ours) == list(theirs) == uids
    n_nodes = 0
    for uid in uids:
        n_nodes += assert_same(theirs.client[uid], ours.client[uid], uid)
        assert ours[uid].stop == theirs[uid].stop
        assert ours[uid].stop is not None
    assert n_nodes > 2 * len(uids)


def test_the_documents_out_of_the_database_are_the_same(both, derived):
    theirs, ours = both
    for uid in derived.uids:
        one, other = (list(db[uid].documents()) for db in (theirs, ours))
        assert [name for name, _ in one] == [name for name, _ in other]
        for (name, a), (_, b) in zip(one, other, strict=True):
            for key in {*a, *b} - {"uid", "descriptor"}:  # made up anew with each reading
                if key != "data":
                    assert str(a.get(key)) == str(b.get(key)), (name, key)
            if "data" in a:
                assert a["data"].keys() == b["data"].keys()
                for key, value in a["data"].items():
                    np.testing.assert_array_equal(value, b["data"][key])


def test_events_have_uids_of_their_own(derived):
    """They are made many at once; event_model makes each with uuid4."""
    uids = [uid for name, doc in derived.documents if name == "event_page" for uid in doc["uid"]]
    assert len(set(uids)) == len(uids) > 30
    for uid in uids:
        assert str(UUID(uid)) == uid
        assert UUID(uid).version == 4


def page_of(run: DerivedRun, frame: int, n: int = 4) -> None:
    run.page({"y": np.arange(float(n)), "frame": np.full(n, frame)}, 1.0)


def rows_in(db: Database, uid: str) -> list[int]:
    """Frames of the rows that another client of this database sees."""
    run = db.client[uid] if uid in db else {}
    if "primary" not in list(run) or "internal" not in list(run["primary"].base):
        return []
    return sorted(set(run["primary"].base["internal"].read()["frame"]))


def test_rows_are_stored_when_their_time_has_come(db):
    """Without the run's stop, and without another document."""
    timed = Database(db.client, db._files.folder, flush_s=0.4)
    writer = BackgroundWriter(timed)
    run = DerivedRun(ROOT, "timed", {}, writer.insert, {})
    page_of(run, 1)
    page_of(run, 2)
    assert wait_for(lambda: rows_in(db, run.uid), 60.0) == [1, 2]
    assert db[run.uid].stop is None
    page_of(run, 3)
    run.stop("success", "")
    writer.flush()
    assert rows_in(db, run.uid) == [1, 2, 3]
    assert writer.failed == 0
    assert writer.done == writer.inserted
    writer.close()


def test_a_row_waits_no_longer_than_said(db, monkeypatch):
    """A database that nobody asks between the documents, as when a run engine inserts into it."""
    now_s = 100.0
    clock = SimpleNamespace(monotonic=lambda: now_s)
    monkeypatch.setattr("tomostream_ioc.documents.run_writer.time", clock)
    timed = Database(db.client, db._files.folder, flush_s=0.2)
    run = DerivedRun(ROOT, "timed", {}, timed.insert, {})
    page_of(run, 1)
    assert rows_in(db, run.uid) == []
    now_s += 0.15
    page_of(run, 2)
    assert rows_in(db, run.uid) == []
    now_s += 0.1
    page_of(run, 3)
    assert rows_in(db, run.uid) == [1, 2, 3]
    page_of(run, 4)
    now_s += 0.01
    timed.flush()
    assert rows_in(db, run.uid) == [1, 2, 3, 4]
    run.stop("success", "")


def test_what_waits_is_stored_when_the_database_is_closed(db, database_folder):
    with open_database(database_folder) as other:
        run = DerivedRun(ROOT, "peak_tracker", {}, other.insert, {})
        page_of(run, 1)
    assert list(read_peaks(db, run.uid)["frame"]) == [1] * 4
    assert db[run.uid].stop is None


def test_rows_that_the_database_refused_come_later(db, database_folder, caplog, monkeypatch):
    """Somebody moves the table away, and back: nothing is lost, none comes twice, it is said."""
    monkeypatch.setattr("tiled.client.utils.TILED_RETRY_ATTEMPTS", 1)  # of 10, in 45 s
    tables = Tables(database_folder / "tables.sqlite")
    timed = Database(db.client, database_folder / "images", flush_s=0.3)
    writer = BackgroundWriter(timed)
    run = DerivedRun(ROOT, "timed", {}, writer.insert, {})
    page_of(run, 1)
    writer.flush()
    tables.away()
    try:
        page_of(run, 2)
        wait_for(lambda: writer.failed, 100.0)
        assert "not recorded" in caplog.text
        page_of(run, 3)
    finally:
        tables.back()  # other tests have the same database
    wait_for(lambda: rows_in(db, run.uid) == [1, 2, 3], 100.0)
    page_of(run, 4)
    run.stop("success", "")
    writer.close()
    table = db.client[run.uid]["primary"].base["internal"].read()
    assert list(table["seq_num"]) == list(range(1, 17))


def test_the_writer_holds_no_more_than_it_may():
    """Documents that wait are bounded by their bytes: who brings more waits, nothing is lost."""

    class Slow:
        def __init__(self):
            self.frames: list[int] = []
            self.held = 0

        def insert(self, _, doc):
            time.sleep(0.01)
            self.held = max(self.held, writer._bytes)
            self.frames.append(doc["seq_num"])

        def flush_due(self):
            pass

        flush = flush_due

    slow = Slow()
    writer = BackgroundWriter(slow, max_waiting_bytes=3_000_000)  # type: ignore[arg-type]
    images = [np.zeros((500, 500, n), np.uint16) for n in (2, 2, 8, 2, 2, 2, 2)]
    for n, image in enumerate(images):
        writer.insert("event", {"seq_num": n, "data": {KEY: image}})
    writer.flush()
    assert slow.frames == list(range(len(images)))  # the large one too, which is beyond all room
    assert 0 < slow.held <= 4_000_000
    writer.close()
