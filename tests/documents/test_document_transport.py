"""Documents on the wire: safe by default, with what any network may bring."""

from __future__ import annotations

import contextlib
import os
import pickle
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import msgpack
import msgpack_numpy
import numpy as np
import pytest
import zmq
from bluesky.callbacks.zmq import Publisher, RemoteDispatcher
from crystal_scan import KEY, PIXELS, SHAPE, frames_at
from event_model import compose_run
from support.ports import free_port
from support.processes import Child

from tomostream_ioc.documents import build_chain
from tomostream_ioc.documents.server import Server
from tomostream_ioc.documents.transport import (
    CurveKeys,
    DocumentPublisher,
    DocumentReceiver,
    WireError,
    dumps,
    loads,
    loads_with_pickle,
)
from tomostream_ioc.documents.transport.address import Address
from tomostream_ioc.errors import ConfigError

LIMIT_S = 60.0


class RunsCode:
    """What an attacker pickles: touches a file where it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return (os.mkdir, (self.path,))


class Proxy(Child):
    def __init__(self, *options: str):
        self.ports = Address("localhost", free_port()), Address("localhost", free_port())
        arguments = ["-m", "tomostream_ioc.documents", "proxy", *(str(a.port) for a in self.ports)]
        super().__init__([*arguments, *options], dict(os.environ, PYTHONUNBUFFERED="1"))
        self.expect("Ready", 120.0)


@pytest.fixture(scope="module")
def proxy():
    child = Proxy("--high-water", "10000")  # all of a flood comes through
    yield child
    assert child.close(LIMIT_S) == 0, child.output


@pytest.fixture
def receiver(proxy):
    made = []

    def make(**options) -> DocumentReceiver:
        made.append(DocumentReceiver(proxy.ports[1], prefix=b"raw", **options))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def publish(proxy):
    publisher = DocumentPublisher(proxy.ports[0], prefix=b"raw")
    yield publisher
    publisher.close(0.0)


def run_of(n: int) -> Iterator[tuple[str, Any]]:
    """Documents of a run of n points."""
    bundle = compose_run(metadata={"shape": list(SHAPE), "snaking": [False, True]})
    key: Any = {"dtype": "array", "dtype_numpy": "<u2", "shape": [3, *PIXELS], "source": "SIM"}
    described = bundle.compose_descriptor(name="primary", data_keys={KEY: key})
    yield "start", bundle.start_doc
    yield "descriptor", described.descriptor_doc
    for point in range(n):
        frames = frames_at(divmod(point, SHAPE[1]))
        yield "event", described.compose_event(data={KEY: frames}, timestamps={KEY: 1.0})
    yield "stop", bundle.compose_stop()


def take(receiver, condition) -> list:
    """Documents that come until ``condition()``."""
    deadline, got = time.monotonic() + LIMIT_S, []
    while not condition():
        assert time.monotonic() < deadline, (receiver.counts, len(got))
        document = receiver.receive(0.1)
        if document is not None:
            got.append(document)
    return got


def raw_socket(proxy) -> zmq.Socket:
    """Sends any bytes; somebody who wants "raw" listens."""
    socket = zmq.Context.instance().socket(zmq.XPUB)
    socket.linger = 0
    socket.setsockopt(zmq.XPUB_NODROP, 1)
    socket.connect(proxy.ports[0].uri)
    assert socket.poll(int(1e3 * LIMIT_S))
    return socket


VALUES = {
    "u2": np.arange(24, dtype=np.uint16).reshape(2, 3, 4),
    "not contiguous": np.arange(24.0).reshape(4, 6)[:, ::2],
    "big endian": np.arange(5, dtype=">i4"),
    "text": np.array(["a", "longer"]),
    "bool": np.array([True, False]),
    "empty": np.empty((0, 7), np.float32),
    "no axis": np.array(3.5),
    "complex": np.array([1 + 2j]),
    "time": np.array(["2026-11-21"], "M8[D]"),
}


@pytest.mark.parametrize("name", VALUES)
def test_arrays_come_back(name):
    value = VALUES[name]
    back = loads(dumps({"x": value}))["x"]
    assert back.dtype == value.dtype
    assert back.shape == value.shape
    np.testing.assert_array_equal(back, value)
    # the package whose format it is reads it as well, and is read
    theirs = msgpack.unpackb(dumps({"x": value}), object_hook=msgpack_numpy.decode)["x"]
    np.testing.assert_array_equal(theirs, value)
    if value.dtype.kind != "M":  # that it can't write
        packed = msgpack.packb({"x": value}, default=msgpack_numpy.encode)
        np.testing.assert_array_equal(loads(packed)["x"], value)


def test_scalars_and_lists_come_back():
    doc = {
        "n": np.int64(5),
        "f": 0.1,
        "c": 1j,
        "l": [1, [2.5, "x"]],
        "none": None,
        "d": {"k": True},
    }
    back = loads(dumps(doc))
    assert back == doc
    assert back["n"].dtype == np.int64


@pytest.mark.parametrize(
    "value",
    [np.array([{}, None]), object(), {1, 2}, 1 << 70],
    ids=["objects", "object", "set", "large"],
)
def test_what_is_no_document_is_not_sent(value):
    with pytest.raises(WireError, match="can't be sent"):
        dumps({"x": value})


def test_no_way_of_packing_runs_code(tmp_path):
    trap = tmp_path / "ran"
    evil = pickle.dumps({"uid": RunsCode(trap)})
    packed = {b"nd": True, b"type": "|O", b"kind": b"O", b"shape": [1], b"data": evil}
    structure = packed | {b"type": [["x", "|O"]], b"kind": b"V"}
    plain = packed | {b"kind": b""}
    attacks = [evil, *(msgpack.packb({"x": attack}) for attack in (packed, structure, plain))]
    for protocol in range(6):
        attacks.append(pickle.dumps({"uid": RunsCode(trap)}, protocol))
    for attack in attacks:
        with pytest.raises(WireError):
            loads(attack)
    assert not trap.exists()
    # the trap is one: where pickles are allowed it snaps
    with pytest.raises(WireError):
        loads(evil)
    loads_with_pickle(evil)
    assert trap.exists()


@pytest.mark.parametrize(
    "shape", [[-1], [3, -2], [7], [1 << 62, 4], ["a"], 5, None], ids=str
)  # fmt: skip
def test_a_wrong_shape_is_refused(shape):
    array = {b"nd": True, b"type": "<u2", b"kind": b"", b"shape": shape, b"data": bytes(12)}
    with pytest.raises(WireError):
        loads(msgpack.packb({"x": array}))


def test_random_bytes_are_refused_or_a_document():
    rng = np.random.default_rng(1)
    good = dumps({"uid": "x", "image": np.arange(100)})
    for _ in range(3000):
        data = bytearray(good if rng.random() < 0.5 else rng.bytes(int(rng.integers(0, 60))))
        for _ in range(rng.integers(0, 4) if data else 0):
            data[rng.integers(len(data))] = rng.integers(256)
        with contextlib.suppress(WireError):
            assert isinstance(loads(bytes(data)), dict)
    with pytest.raises(WireError):
        loads(b"\x91" * 100_000)


def test_pickle_is_refused_and_said(proxy, receiver, caplog):
    listener = receiver()
    theirs = Publisher(str(proxy.ports[0]), prefix=b"raw")  # bluesky's, as it is
    documents = list(run_of(2))

    def send():
        # it can't know when it is connected: again until something came
        for name, doc in documents:
            theirs(name, doc)
        listener.receive(0.05)
        return listener.counts.pickled >= 4

    deadline = time.monotonic() + LIMIT_S
    while not send():
        assert time.monotonic() < deadline
    assert listener.counts.documents == 0
    assert listener.counts.refused == listener.counts.pickled
    said = [record.message for record in caplog.records if "pickle" in record.message]
    assert len(said) == 1, said
    theirs.close()


def test_a_bluesky_publisher_is_understood_where_pickle_is_allowed(proxy, receiver):
    listener = receiver(deserializer=loads_with_pickle)
    theirs = Publisher(str(proxy.ports[0]), prefix=b"raw")
    safe = Publisher(str(proxy.ports[0]), prefix=b"raw", serializer=dumps)
    documents = list(run_of(1))
    for publisher in (theirs, safe):
        got = []
        deadline = time.monotonic() + LIMIT_S
        while not got:
            assert time.monotonic() < deadline
            publisher(*documents[2])
            got = [document for document in [listener.receive(0.05)] if document]
        assert got[0][0] == "event"
        np.testing.assert_array_equal(got[0][1]["data"][KEY], documents[2][1]["data"][KEY])
        while listener.receive(0.2):
            pass
        publisher.close()
    assert not listener.counts.refused


def test_bluesky_dispatcher_reads_what_is_published(proxy, publish):
    got = []
    dispatcher = RemoteDispatcher(str(proxy.ports[1]), prefix=b"raw", deserializer=loads)
    dispatcher.subscribe(lambda name, doc: got.append((name, doc)))

    def ends(name, doc):
        raise KeyboardInterrupt  # what ends it, says its own page

    dispatcher.subscribe(ends, "stop")

    def listen():
        with pytest.raises(KeyboardInterrupt):
            dispatcher.start()

    thread = threading.Thread(target=listen)
    thread.start()
    assert publish.wait_for_listener(LIMIT_S)
    for name, doc in run_of(2):
        publish(name, doc)
    thread.join(LIMIT_S)
    assert not thread.is_alive()
    assert [name for name, _ in got] == ["start", "descriptor", "event", "event", "stop"]


def test_a_flood_of_garbage_is_survived(proxy, receiver, publish):
    listener = receiver(high_water=10_000)
    chain = build_chain(KEY, diameter=11, search_range=8, memory=14)
    server = Server(listener, chain)
    attacker = raw_socket(proxy)
    rng = np.random.default_rng(0)
    good = dumps({"uid": "1"})
    n = 2000
    for i in range(n):
        body = [
            rng.bytes(int(rng.integers(0, 300))),
            b"event " + rng.bytes(200),
            b"no_such_document " + good,
            b"stop " + dumps({"run_start": "never came"}),
            b"event " + dumps({"descriptor": "never came", "data": {}, "seq_num": -1}),
            b"start " + dumps({}),
            b"descriptor " + dumps({"run_start": 5}),
            b"",
        ][i % 8]
        attacker.send(b"raw " + body)
    attacker.send_multipart([b"raw start ", good])
    assert publish.wait_for_listener(LIMIT_S)
    taken = [0]

    def ending():
        counts = listener.counts
        taken[0] = counts.documents + counts.refused
        return taken[0] >= n + 1

    deadline = time.monotonic() + LIMIT_S
    server.run(lambda: ending() or time.monotonic() > deadline, lambda: None)
    assert taken[0] == n + 1
    assert listener.counts.refused >= n // 2
    for name, doc in run_of(3):
        publish(name, doc)
    done = chain.mapper.counts
    server.run(lambda: done.runs >= 1 or time.monotonic() > deadline, lambda: None)
    assert (done.runs, done.partial_runs) == (1, 0)
    assert chain.processor.counts.processed == 3
    assert "refused" in server.status()
    attacker.close()


def test_who_comes_late_misses_a_run_and_takes_the_next(receiver, publish, checked):
    chain = build_chain(KEY, diameter=11, search_range=8, memory=14)
    recorder = checked()
    chain.mapper.subscribe(recorder)
    listener = receiver()
    server = Server(listener, chain)
    assert publish.wait_for_listener(LIMIT_S)
    late, whole, gap = list(run_of(4)), list(run_of(4)), list(run_of(4))
    for name, doc in (*late[3:], *whole, *gap[:3], *gap[5:]):
        publish(name, doc)
    deadline = time.monotonic() + LIMIT_S
    runs = chain.mapper.counts
    server.run(lambda: runs.runs >= 2 or time.monotonic() > deadline, lambda: None)
    # three events and the stop of the first; its start went by before anybody listened
    assert chain.processor.counts.orphans == 4
    assert chain.processor.counts.processed == 4 + 2
    assert chain.processor.counts.missed == 2
    assert [stop["exit_status"] for stop in recorder.named("stop")] == ["success", "fail"]
    assert "2 frames never came" in recorder.named("stop")[1]["reason"]


def test_a_publisher_says_that_nobody_takes(proxy):
    nobody = Address("localhost", free_port())
    publisher = DocumentPublisher(nobody, prefix=b"raw", timeout_s=0.2)
    assert not publisher.wait_for_listener(0.3)
    publisher.close(0.0)


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("server.key", None, "There is no CURVE key"),
        ("client.key_secret", "no key", "can't be read"),
        ("client.key_secret", 'public-key = "{public}"', "holds no secret key"),
        ("client.key_secret", 'public-key = "{public}"\nsecret-key = "abc"', "no CURVE key of 40"),
        ("server.key", 'public-key = "' + 39 * "a" + ' "', "no CURVE key of 40"),
    ],
)
def test_keys_that_a_client_can_not_use_are_refused_with_the_file(tmp_path, name, text, says):
    keys = CurveKeys.create(tmp_path / "keys")
    keys.check(binds=False)
    (keys.folder / name).unlink()
    if text is not None:
        (keys.folder / name).write_text(text.format(public=40 * "a"))
    with pytest.raises(ConfigError, match=says) as refused:
        keys.check(binds=False)
    assert str(keys.folder / name) in str(refused.value)


def test_curve_lets_in_whom_it_knows(tmp_path, checked):
    keys = CurveKeys.create(tmp_path / "keys")
    stranger = CurveKeys.create(tmp_path / "stranger")
    # the stranger knows the server, the server not the stranger
    (stranger.folder / "server.key").write_bytes((keys.folder / "server.key").read_bytes())
    proxy = Proxy("--curve-keys", str(keys.folder))
    try:
        listener = DocumentReceiver(proxy.ports[1], prefix=b"raw", keys=keys)
        publisher = DocumentPublisher(proxy.ports[0], prefix=b"raw", keys=keys)
        take(listener, lambda: listener.connected)
        assert publisher.wait_for_listener(LIMIT_S)
        documents = list(run_of(1))
        for name, doc in documents:
            publisher(name, doc)
        got = take(listener, lambda: listener.counts.documents >= 4)
        assert [name for name, _ in got] == [name for name, _ in documents]
        for wrong in (stranger, None):
            other = DocumentPublisher(proxy.ports[0], prefix=b"raw", keys=wrong)
            assert not other.wait_for_listener(2.0)
            other.close(0.0)
            deaf = DocumentReceiver(proxy.ports[1], prefix=b"raw", keys=wrong)
            for name, doc in documents:
                publisher(name, doc)
            assert deaf.receive(1.0) is None
            assert not deaf.connected
            deaf.close()
        listener.close()
        publisher.close(0.0)
    finally:
        assert proxy.close(LIMIT_S) == 0, proxy.output
    assert sys.platform == "win32" or (keys.folder / "server.key_secret").stat().st_mode & 0o77 == 0
