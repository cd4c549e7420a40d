"""Documents on the wire: safe by default, with what any network may bring."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
import zmq
from bluesky.callbacks.zmq import Publisher, RemoteDispatcher
from crystal_scan import KEY
from document_wire import LIMIT_S, Proxy, run_of
from support.ports import free_port

from tomostream_ioc.documents import build_chain
from tomostream_ioc.documents.server import Server
from tomostream_ioc.documents.transport import (
    DocumentPublisher,
    DocumentReceiver,
    dumps,
    loads,
    loads_with_pickle,
)
from tomostream_ioc.documents.transport.address import Address


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


def raw_socket(proxy) -> zmq.Socket:
    """Sends any bytes; somebody who wants "raw" listens."""
    socket = zmq.Context.instance().socket(zmq.XPUB)
    socket.linger = 0
    socket.setsockopt(zmq.XPUB_NODROP, 1)
    socket.connect(proxy.ports[0].uri)
    assert socket.poll(int(1e3 * LIMIT_S))
    return socket


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


def test_a_publisher_says_that_nobody_takes():
    nobody = Address("localhost", free_port())
    publisher = DocumentPublisher(nobody, prefix=b"raw", timeout_s=0.2)
    assert not publisher.wait_for_listener(0.3)
    publisher.close(0.0)
