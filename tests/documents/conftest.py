"""What tests of documents share: a database, a run engine, and a check of each document."""

from __future__ import annotations

from typing import Any

import event_model
import numpy as np
import pytest
from command_site import expected_tracks, write_scan
from event_model import DocumentNames, DocumentRouter, schema_validators

from tomostream_ioc.documents import open_database


class Checked(DocumentRouter):
    """Keeps documents, and proves each against its schema and its descriptor."""

    def __init__(self):
        super().__init__()
        self.documents: list[tuple[str, Any]] = []
        self.problems: list[str] = []
        self._descriptors: dict[str, Any] = {}

    def __call__(self, name, doc, validate=False):
        self.documents.append((name, doc))
        try:
            schema_validators[DocumentNames[name]].validate(doc)
            super().__call__(name, doc, validate=True)
        except Exception as error:  # noqa: BLE001 - stages survive their subscribers
            self.problems.append(f"{name}: {error!r}")
        return name, doc

    def descriptor(self, doc):
        self._descriptors[doc["uid"]] = doc
        return doc

    def event(self, doc):
        keys = self._descriptors[doc["descriptor"]]["data_keys"]
        inline = {k for k, declared in keys.items() if "external" not in declared}
        assert set(doc["data"]) == inline == set(doc["timestamps"])
        for key in inline:
            value = np.asarray(doc["data"][key])
            assert value.dtype.str == keys[key]["dtype_numpy"], (key, value.dtype)
            assert list(value.shape) == list(keys[key]["shape"]), (key, value.shape)
        return doc

    def named(self, name: str) -> list[Any]:
        return [doc for kind, doc in self.documents if kind == name]

    def rows(self) -> list[dict]:
        """Data of all events of the stream "primary", pages unpacked."""
        primary = {d["uid"] for d in self.named("descriptor") if d["name"] == "primary"}
        rows = []
        for name, doc in self.documents:
            if name == "event":
                events = [doc]
            elif name == "event_page":
                events = list(event_model.unpack_event_page(doc))
            else:
                continue
            rows += [e["data"] for e in events if e["descriptor"] in primary]
        return rows


@pytest.fixture
def checked():
    made = []

    def make() -> Checked:
        made.append(Checked())
        return made[-1]

    yield make
    problems = [problem for each in made for problem in each.problems]
    assert not problems, problems


@pytest.fixture(scope="session")
def database_folder(tmp_path_factory):
    return tmp_path_factory.mktemp("database")


@pytest.fixture(scope="session")
def db(database_folder, tmp_path_factory):
    """Tiled in a folder: shared, as it takes seconds to start."""
    with open_database(database_folder, readable=[tmp_path_factory.getbasetemp()]) as database:
        yield database


@pytest.fixture(scope="session")
def scan(tmp_path_factory):
    """The frames of a scan in an HDF5 file."""
    return write_scan(tmp_path_factory.mktemp("scan") / "scan.h5")


@pytest.fixture(scope="session")
def expected(scan):
    """The tracks of that file, found without a network."""
    return expected_tracks(scan)
