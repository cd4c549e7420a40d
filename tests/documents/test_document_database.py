"""The database in a folder: what it keeps, for whom, and how images are stored."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from crystal_scan import KEY, PIXELS, frames_at
from event_model import compose_run

from tomostream_ioc.documents import ImageFiles, ImageProcessor, open_database, read_tracks
from tomostream_ioc.documents.track_linker import TrackLinker
from tomostream_ioc.errors import TrackingError


def raw_documents(n: int = 4) -> Iterator[tuple[str, Any]]:
    """Of a run whose descriptor says another shape and type than its arrays have."""
    bundle = compose_run(metadata={"shape": [2, 2]})
    key = {"dtype": "array", "shape": [PIXELS[1], PIXELS[0], 1], "source": "SIM"}
    total = {"dtype": "number", "dtype_numpy": "<f8", "shape": [], "source": "SIM"}
    described = bundle.compose_descriptor(name="primary", data_keys={KEY: key, "total": total})
    yield "start", bundle.start_doc
    yield "descriptor", described.descriptor_doc
    for i in range(n):
        data = {KEY: frames_at((0, i)), "total": float(i)}
        yield "event", described.compose_event(data=data, timestamps=dict.fromkeys(data, 1.0))
    yield "stop", bundle.compose_stop()


def test_images_leave_their_events(tmp_path, checked):
    files, recorder = ImageFiles(tmp_path), checked()
    files.subscribe(recorder)
    for name, doc in raw_documents():
        files(name, doc)
    (declared,) = recorder.named("descriptor")
    assert declared["data_keys"][KEY]["shape"] == [3, *PIXELS]
    assert declared["data_keys"][KEY]["dtype_numpy"] == "<u2"
    assert declared["data_keys"][KEY]["external"] == "STREAM:"
    assert [set(event["data"]) for event in recorder.named("event")] == [{"total"}] * 4
    assert len(recorder.named("stream_resource")) == 1
    assert [d["seq_nums"]["start"] for d in recorder.named("stream_datum")] == [1, 2, 3, 4]

    processor, results = ImageProcessor(KEY), []
    processor.on_result = results.append
    for name, doc in recorder.documents:
        processor(name, doc)
    assert processor.counts.failed == processor.counts.missed == 0
    for i, result in enumerate(results):
        np.testing.assert_allclose(result.image, frames_at((0, i)).mean(axis=0), rtol=1e-6)


def test_an_image_of_another_shape_is_counted(tmp_path, checked, caplog):
    files, recorder = ImageFiles(tmp_path), checked()
    files.subscribe(recorder)
    for name, doc in raw_documents():
        if name == "event" and doc["seq_num"] == 3:
            doc["data"][KEY] = np.zeros((3, 80, 80), np.uint16)
        files(name, doc)
    assert files.counts.failed == 1
    assert "of event 3 is not written" in caplog.text
    assert [d["seq_nums"]["start"] for d in recorder.named("stream_datum")] == [1, 2, 4]


def test_runs_outlive_the_process_that_wrote_them(db, database_folder):
    """Another process opens the same folder, while this one has it open."""
    documents = list(raw_documents())
    for name, doc in documents:
        db.insert(name, doc)
    uid = documents[0][1]["uid"]
    program = f"""
        import numpy as np
        from tomostream_ioc.documents import open_database
        db = open_database({str(database_folder)!r})
        run = db[{uid!r}]
        print(run.stop["exit_status"], run.client["primary"][{KEY!r}].read().shape)
    """  # and ends without closing it: a script may forget
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[0] == f"success (4, 3, {PIXELS[0]}, {PIXELS[1]})"


def test_no_such_run(db):
    with pytest.raises(KeyError):
        db["no such run"]
    with pytest.raises(TrackingError, match="no track_linker run"):
        read_tracks(db, "no such run")


def test_db_and_subscribe_record_once(db):
    linker = TrackLinker(db=db, search_range=8)
    linker.subscribe(db.insert)
    bundle = compose_run(metadata={"shape": [2, 2]})
    linker("start", bundle.start_doc)
    linker("stop", bundle.compose_stop())
    assert linker.counts.subscriber_errors == 0
    assert len(db.find(parent_run_uid=bundle.start_doc["uid"])) == 1
    assert read_tracks(db, bundle.start_doc["uid"]).empty


def test_a_folder_that_can_t_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(TrackingError, match="No database can be made"):
        open_database(tmp_path / "file" / "database")


def test_without_bluesky_one_sentence_says_what_to_install():
    program = """
        import sys
        sys.modules["event_model"] = None
        import tomostream_ioc.documents
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "pip install tomostream_ioc[bluesky]" in done.stderr.strip().split("\n")[-1]


def test_two_databases_in_one_process_do_not_shut_each_other_out(db, tmp_path):
    with open_database(tmp_path / "other") as other:
        assert "no such run" not in other
    assert "no such run" not in db
