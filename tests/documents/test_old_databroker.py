"""Old databroker 1.x as the database: recorded with it, and runs of an old catalog sent again."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pandas as pd
import pytest
from command_site import FIND, LIMIT_S, Command, chain_here
from crystal_scan import KEY
from support.ports import free_port

from tomostream_ioc.documents import ImageProcessor, PeakTracker, TrackLinker
from tomostream_ioc.documents.commands import main

databroker = pytest.importorskip(
    "databroker", reason="databroker 1.x is not installed (the extra `databroker`)"
)
if not databroker.__version__.startswith("1."):
    pytest.skip("databroker 2 reads Tiled alone", allow_module_level=True)
pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def catalog(tmp_path_factory):
    """Environment in which databroker knows the catalog "old" of msgpack files."""
    folder = tmp_path_factory.mktemp("old")
    files = folder / "share" / "intake"
    files.mkdir(parents=True)
    (folder / "runs").mkdir()
    (files / "old.yml").write_text(
        "sources:\n  old:\n    driver: bluesky-msgpack-catalog\n    args:\n"
        f"      paths: ['{folder / 'runs'}/*.msgpack']\n"
    )
    return {"INTAKE_PATH": str(files)}, folder / "runs"


def test_stages_record_with_a_broker_and_it_replays(scan, expected):
    """The manual's way: each stage has ``db``, and `db[-1]` is processed once more."""
    db = databroker.v1.temp()
    stages = [
        ImageProcessor(KEY, db=db),
        PeakTracker(KEY, 11, percentile=80, separation=15, minmass=500, db=db),
        TrackLinker(search_range=8, db=db),
    ]
    for stage, after in itertools.pairwise(stages):
        stage.subscribe(after)
    for name, doc in scan.documents():
        db.insert(name, doc)
        stages[0](name, doc)
    assert [stage.counts.subscriber_errors for stage in stages] == [0, 0, 0]
    (header,) = db(analysis_stage="track_linker")
    table = header.table()
    for name in expected.columns:
        np.testing.assert_array_equal(table[name], expected[name], err_msg=name)
    # peaks that were recorded are linked again, by a linker that never saw the images
    (peaks,) = db(analysis_stage="peak_tracker")
    linker = TrackLinker(search_range=8)
    tables: list[Any] = []
    linker.on_result = lambda result: tables.append(getattr(result, "table", None))
    for name, doc in peaks.documents():
        linker(name, doc)
    assert linker.counts.repeated == linker.counts.missed == 0
    again = pd.concat(tables, ignore_index=True)
    np.testing.assert_array_equal(again["particle"], expected["particle"])
    (raw,) = (header for header in db() if "analysis_stage" not in header.start)
    for fill in (True, False):  # these images are inside the events anyway
        chain = chain_here()
        for name, doc in raw.documents(fill=fill):
            chain(name, doc)
        assert chain.linker.counts.found == len(expected)
        assert chain.mapper.counts.partial_runs == 0


def test_a_run_of_an_old_catalog_is_sent_again(scan, expected, catalog):
    """By name, as a process, through a proxy to `serve`."""
    from suitcase.msgpack import Serializer  # type: ignore[import-not-found]

    environ, runs = catalog
    uid = ""
    with Serializer(runs) as serializer:
        for name, doc in scan.documents():
            serializer(name, doc)
            uid = doc["uid"] if name == "start" else uid
    into, out = free_port(), free_port()
    children = []
    try:
        children.append(Command("proxy", into, out))
        server = Command("serve", "--in", f"localhost:{out}", *FIND)
        children.append(server)
        server.expect("Connected", LIMIT_S)
        sender = Command(
            "publish", "--run", uid, "--db", "databroker:old", "--to", f"localhost:{into}",
            "--rate", 60, environ=environ,
        )  # fmt: skip
        children.append(sender)
        assert sender.wait(LIMIT_S) == 0, sender.output
        whole = server.expect(f"Run {uid} is ", LIMIT_S)
        assert f"is whole: {len(expected)} peaks" in whole
    finally:
        for child in children:
            child.close()


def test_what_is_not_there_is_said(capsys):
    assert main(["publish", "--run", "x", "--db", "databroker:nowhere"]) == 2
    assert "knows no catalog nowhere" in capsys.readouterr().err
