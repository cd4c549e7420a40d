"""Publishers that die, scans that pause, and files that documents name but nobody may read."""

from __future__ import annotations

import signal

import pytest
from command_site import FIND, LIMIT_S, Command, chain_here
from crystal_scan import KEY, N_FRAMES, N_POINTS, PIXELS, Scan, write_frames
from event_model import compose_run
from support.ports import free_port
from support.processes import wait_for

from tomostream_ioc.documents import ImageProcessor, read_peaks
from tomostream_ioc.documents.background_writer import BackgroundWriter
from tomostream_ioc.documents.server import Server
from tomostream_ioc.documents.silence import Silence
from tomostream_ioc.documents.transport import DocumentPublisher, DocumentReceiver
from tomostream_ioc.documents.transport.address import Address

pytestmark = pytest.mark.timeout(600)
SILENT_S = 1.0
CLOSE_S = 6.0


@pytest.fixture(scope="module")
def allowed(tmp_path_factory):
    return tmp_path_factory.mktemp("allowed")


@pytest.fixture(scope="module")
def served(allowed):
    into, out = free_port(), free_port()
    proxy = Command("proxy", into, out)
    server = Command(
        "serve", "--in", f"localhost:{out}", *FIND, "--silent-limit", SILENT_S,
        "--close-after", CLOSE_S, "--status-period", 0.2, "--read-from", allowed,
    )  # fmt: skip
    publisher = DocumentPublisher(Address("localhost", into), prefix=b"raw")
    try:
        server.expect("Connected", LIMIT_S)
        assert publisher.wait_for_listener(LIMIT_S)

        def send(documents):
            for name, doc in documents:
                publisher(name, doc)

        yield server, send
        server.signal(signal.SIGTERM)
        assert server.wait(LIMIT_S) == 0, server.output
        assert publisher.unheard == 0
    finally:
        publisher.close(0.0)
        for child in (server, proxy):
            child.close()


def test_a_scan_that_pauses_is_whole(served):
    server, send = served
    scan = Scan()
    send([*scan.head, *scan.points[:3]])
    server.expect(f"Run {scan.uid} is silent", LIMIT_S)
    send([*scan.points[3:], *scan.stop])
    assert "is whole" in server.expect(f"Run {scan.uid} is ", LIMIT_S)


def test_a_run_whose_publisher_died_is_closed_when_another_begins(served):
    server, send = served
    dead, after = Scan(), Scan()
    send([*dead.head, *dead.points[:4]])
    server.expect(f"Run {dead.uid} is silent", LIMIT_S)
    send(after.all)
    partial = server.expect(f"Run {dead.uid} is partial", LIMIT_S)
    assert "fell silent, and another run began" in partial
    assert " 0 peaks" not in partial
    assert "is whole" in server.expect(f"Run {after.uid} is ", LIMIT_S)
    # it was not dead
    send([*dead.points[4:], *dead.stop])
    assert "frames 1 to 4 are in those before" in server.expect(f"Run {dead.uid} goes on", LIMIT_S)
    rest = server.expect(f"Run {dead.uid} is partial", LIMIT_S)
    assert "4 frames came before it was closed as partial" in rest
    assert "never came" not in rest
    assert "0 maps" not in rest
    line = server.expect_any("frames ")
    assert "orphans 0" in line
    assert "missed 0" in line
    assert "silent 2" in line


def test_a_run_is_closed_after_long_though_no_other_begins(served):
    server, send = served
    dead = Scan()
    send([*dead.head, *dead.points[:4]])
    assert "no document came for" in server.expect(f"Run {dead.uid} is partial", LIMIT_S)
    send(dead.stop)
    assert "has ended" in server.expect(f"Run {dead.uid}, closed as partial before,", LIMIT_S)


def test_the_server_reads_files_where_it_may_and_no_others(served, allowed, tmp_path):
    server, send = served
    for folder in (allowed, tmp_path):
        write_frames(folder / "frames.h5")
    (allowed / "way_out.h5").symlink_to(tmp_path / "frames.h5")
    inside = Scan(allowed / "frames.h5")
    send(inside.all)
    assert "is whole" in server.expect(f"Run {inside.uid} is ", LIMIT_S)
    for path in (tmp_path / "frames.h5", allowed / "way_out.h5", "/dev/zero"):
        outside = Scan(path)
        send(outside.all)
        partial = server.expect(f"Run {outside.uid} is partial", LIMIT_S)
        assert f"{N_POINTS} frames failed" in partial
        assert "may not be read" in partial
        assert "--read-from" in partial
        assert " 0 peaks" in partial


def test_resources_and_odd_uris_are_refused_as_well(tmp_path, caplog):
    write_frames(tmp_path / "frames.h5")
    (tmp_path / "in").mkdir()
    for uri in ("http://127.0.0.1:1/x.h5", "sqlite:////etc/passwd"):
        scan = Scan(tmp_path / "frames.h5")
        scan.head[-1][1]["uri"] = uri
        processor = ImageProcessor(KEY, read_from=[tmp_path])
        for name, doc in scan.all:
            processor(name, doc)
        assert processor.counts.failed == N_POINTS
        assert "is no file's URI" in caplog.text
    bundle = compose_run()
    key = {"dtype": "array", "shape": [N_FRAMES, *PIXELS], "source": "SIM", "external": "FILE:"}
    described = bundle.compose_descriptor(name="primary", data_keys={KEY: key})  # type: ignore[dict-item]
    resource = bundle.compose_resource(
        spec="AD_HDF5", root=str(tmp_path / "in"), resource_path="../frames.h5",
        resource_kwargs={"frame_per_point": N_FRAMES},
    )  # fmt: skip
    datum = resource.compose_datum(datum_kwargs={"point_number": 0})
    event = described.compose_event(
        data={KEY: datum["datum_id"]}, timestamps={KEY: 1.0}, filled={KEY: False}
    )
    for folders, failed in (([tmp_path / "in"], 1), ([tmp_path], 0), (None, 0), ([], 1)):
        processor = ImageProcessor(KEY, read_from=folders)
        for name, doc in (
            ("start", bundle.start_doc),
            ("descriptor", described.descriptor_doc),
            ("resource", resource.resource_doc),
            ("datum", datum),
            ("event", event),
        ):
            processor(name, doc)
        assert (processor.counts.failed, processor.counts.processed) == (failed, 1 - failed)


def test_the_record_of_a_silent_run_is_closed_with_it(db):
    """In the database, the raw run and its results; what comes later is counted as not recorded."""
    receiver = DocumentReceiver(Address("localhost", free_port()))
    writer = BackgroundWriter(db)
    said: list[str] = []
    server = Server(
        receiver, chain_here(db=writer), writer=writer, record_raw=True, say=said.append,
        silence=Silence(0.05, 60.0),
    )  # fmt: skip
    dead, after = Scan(), Scan()
    for name, doc in [*dead.head, *dead.points[:4]]:
        server.take(name, doc)

    def is_silent():
        passes = iter((False, True))
        server.run(lambda: next(passes), lambda: None)  # nothing comes
        return server.silent == 1

    wait_for(is_silent)
    for name, doc in [*after.all, *dead.points[4:], *dead.stop]:
        server.take(name, doc)
    server.close("the test is over")
    assert writer.flush()
    assert writer.failed == N_POINTS - 4 + 1  # two points and the stop
    writer.close()
    stop = db[dead.uid].stop or {}
    assert (stop["exit_status"], "fell silent" in stop["reason"]) == ("abort", True)
    assert len(db[dead.uid]["primary"].read()["time"]) == 4
    assert (db[after.uid].stop or {})["exit_status"] == "success"
    first, second = sorted(
        (set(read_peaks(db, uid)["frame"]) for uid in db.find(
            analysis_stage="peak_tracker", root_run_uid=dead.uid)),
        key=min,
    )  # fmt: skip
    assert first == {1, 2, 3, 4}
    assert second == set(range(5, N_POINTS + 1))
    assert any("recording failed" in line for line in said)
