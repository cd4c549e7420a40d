"""What is said of a run whose rows the database refused for a while, or to its end."""

from __future__ import annotations

import re

import pytest
from command_site import chain_here
from crystal_scan import Scan
from database_tables import Tables
from support.ports import free_port
from support.processes import wait_for

from tomostream_ioc.documents import Database, read_peaks, read_tracks
from tomostream_ioc.documents.background_writer import BackgroundWriter
from tomostream_ioc.documents.counts import RecordCounts
from tomostream_ioc.documents.server import Server
from tomostream_ioc.documents.transport import DocumentReceiver
from tomostream_ioc.documents.transport.address import Address

pytestmark = pytest.mark.timeout(600)


class Recording:
    """A server in this process, and what it says; half of a scan is stored."""

    def __init__(self, db, tables):
        self.tables = tables
        self.db = Database(db.client, tables.file.parent / "images", flush_s=0.3)
        self.writer = BackgroundWriter(self.db)
        self.chain = chain_here(db=self.writer)
        self.said: list[str] = []
        receiver = DocumentReceiver(Address("localhost", free_port()))
        self.server = Server(receiver, self.chain, writer=self.writer, say=self.said.append)
        self.scan = Scan()
        self.take(self.scan.head, self.scan.points[:3])
        assert self.writer.flush()

    def take(self, *parts):
        for part in parts:
            for name, doc in part:
                self.server.take(name, doc)

    def map_rows(self) -> int:
        """Maps, and the event that holds the total intensity."""
        return self.chain.mapper.counts.found + 1

    def rows(self) -> int:
        found = self.chain.tracker.counts.found + self.chain.linker.counts.found
        return found + self.map_rows()

    def end(self) -> str:
        """The last line of the run."""
        self.take(self.scan.stop)
        self.server.close("the test is over")
        self.writer.close()
        (line,) = [each for each in self.said if each.startswith(f"Run {self.scan.uid} is ")]
        return line


@pytest.fixture
def recording(db, database_folder, monkeypatch):
    monkeypatch.setattr("tiled.client.utils.TILED_RETRY_ATTEMPTS", 1)  # of 10, in 45 s
    tables = Tables(database_folder / "tables.sqlite")
    try:
        yield Recording(db, tables)
    finally:
        tables.back()  # other tests have the same database


def test_rows_that_came_later_are_no_loss(recording):
    recording.tables.away()
    recording.take(recording.scan.points[3:])
    wait_for(lambda: recording.writer.failed > 0, 100.0)
    recording.tables.back()
    line = recording.end()
    said = re.search(r"is whole \(all (\d+) rows recorded, (\d+) attempts? failed\): ", line)
    assert said, line
    assert int(said[1]) == recording.rows()
    assert int(said[2]) > 0
    assert len(read_peaks(recording.db, recording.scan.uid)) == recording.chain.tracker.counts.found


def test_rows_that_never_came_are_counted(recording):
    recording.tables.away()
    recording.take(recording.scan.points[3:])
    wait_for(lambda: recording.writer.failed > 0, 100.0)
    line = recording.end()
    recording.tables.back()
    said = re.search(
        r"is partial \(recording failed: (\d+) documents? and (\d+) rows? lost, (\d+) rows"
        r" recorded, see the log\): ",
        line,
    )
    assert said, line
    lost, recorded = int(said[2]), int(said[3])
    assert lost > 0
    assert lost + recorded == recording.rows()
    uid = recording.scan.uid
    there = len(read_peaks(recording.db, uid)) + len(read_tracks(recording.db, uid))
    assert recorded == there + recording.map_rows()


def test_a_run_that_went_well_says_nothing_of_rows(recording):
    recording.take(recording.scan.points[3:])
    assert "is whole: " in recording.end()
    assert recording.writer.recorded == RecordCounts(rows=recording.rows())
