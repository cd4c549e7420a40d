"""Images a second through the chain: ZeroMQ, peaks, links, maps and database, as `serve` does.

    python tests/bench/bench_documents.py [--size 2048] [--points 100] [--rates 15,20,25,30]

Beside it, in the same run, ZeroMQ alone with our serializer and with bluesky's, and trackpy alone.
Publisher and proxy are processes of their own, on the same cores. A rate is kept where no frame is
lost and the last result comes within a second of the last frame.
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import pickle
import socket
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import trackpy
from event_model import compose_run

from tomostream_ioc.bench.timing import seconds
from tomostream_ioc.documents import build_chain, open_database
from tomostream_ioc.documents.background_writer import BackgroundWriter
from tomostream_ioc.documents.server import Server
from tomostream_ioc.documents.transport import (
    DocumentProxy,
    DocumentPublisher,
    DocumentReceiver,
    dumps,
    loads,
    loads_with_pickle,
)
from tomostream_ioc.documents.transport.address import Address
from tomostream_ioc.documents.warm_up import warm_up
from tomostream_ioc.tracking import locate
from tomostream_ioc.tracking.rod import CrystalRod

KEY = "dexela_image"
LOCATE: dict[str, Any] = {"percentile": 80, "separation": 100}
DIAMETER = 15
ROW = 10
_LIMIT_S = 120.0


def free_port() -> int:
    with socket.socket() as tcp:
        tcp.bind(("127.0.0.1", 0))
        return tcp.getsockname()[1]


def proxy(in_port: int, out_port: int) -> None:
    DocumentProxy(in_port, out_port).run()


def publish(port: int, images: np.ndarray, points: int, rates: Any) -> None:
    """A run each time that ``rates`` brings (a rate in Hz, whether pickled)."""
    serializers = {True: pickle.dumps, False: dumps}
    publisher = DocumentPublisher(Address("127.0.0.1", port), prefix=b"raw")
    publisher.wait_for_listener(_LIMIT_S)
    while (job := rates.get()) is not None:
        rate, pickled = job
        publisher._serializer = serializers[pickled]
        run = compose_run(metadata={"shape": [points // ROW, ROW], "snaking": [False, True]})
        key = {"dtype": "array", "dtype_numpy": "<u2", "shape": list(images.shape[1:])}
        described = run.compose_descriptor(name="primary", data_keys={KEY: {**key, "source": "-"}})
        publisher("start", run.start_doc)
        publisher("descriptor", described.descriptor_doc)
        began = time.monotonic()
        for n in range(points):
            time.sleep(max(began + n / rate - time.monotonic(), 0))
            event = described.compose_event(
                {KEY: images[n % len(images)]}, {KEY: time.time()}, validate=False
            )
            publisher("event", event)
        publisher("stop", run.compose_stop())
    publisher.close()


def receive_alone(receiver: DocumentReceiver) -> tuple[int, float]:
    """Events of one run, and seconds from the first to the last."""
    n, began, ended = 0, 0.0, 0.0
    deadline = time.monotonic() + _LIMIT_S
    while time.monotonic() < deadline:
        got = receiver.receive(0.5)
        if got is None:
            continue
        if got[0] == "event":
            n, ended = n + 1, time.monotonic()
            began = began or ended
        if got[0] == "stop":
            return n, ended - began
    raise TimeoutError(f"no stop came after {n} events")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size", type=int, default=2048)
    parser.add_argument("--points", type=int, default=100)
    parser.add_argument("--rates", default="15,20,25,30")
    arguments = parser.parse_args()
    logging.disable(logging.INFO)
    sys.setswitchinterval(0.0005)  # as serve does
    size, points = arguments.size, arguments.points
    rod = CrystalRod((10, 15), True, 5, (size, size), n_frames=1, separation_px=100, noise="tiled")
    peaks = [len(rod.peaks(n)) for n in range(1, rod.n_points + 1)]
    busy = np.argsort(peaks)[::-1][:8] + 1
    images = np.stack([rod.image(int(n)) for n in busy])
    background = rod.image(int(rod.empty_frames()[0])).astype(np.float32)

    ctx = multiprocessing.get_context("spawn")
    ports, jobs = (free_port(), free_port()), ctx.Queue()
    children = [
        ctx.Process(target=proxy, args=ports, daemon=True),
        ctx.Process(target=publish, args=(ports[0], images, points, jobs), daemon=True),
    ]
    for child in children:
        child.start()
    out = Address("127.0.0.1", ports[1])
    receiver = DocumentReceiver(out, prefix=b"raw", deserializer=loads_with_pickle)

    print(f"{size} x {size} uint16, {points} points of one frame")
    print("| what | frames/s | lost | median ms late |")
    print("| --- | --- | --- | --- |")
    for name, pickled in (("ZeroMQ alone, MessagePack", False), ("ZeroMQ alone, pickle", True)):
        for rate in (60.0,):
            jobs.put((rate, pickled))
            n, took = receive_alone(receiver)
            print(
                f"| {name}, {rate:g} Hz sent | {(n - 1) / took:.1f} | {points - n} | |", flush=True
            )
    receiver.close()

    image = images[0].astype(np.float32)
    theirs = seconds(lambda: trackpy.locate(image, DIAMETER, **LOCATE), 3)
    ours = seconds(lambda: locate(image, DIAMETER, **LOCATE), 20)
    for name, took in (("trackpy.locate alone", theirs), ("locate alone", ours)):
        print(f"| {name} | {1 / took.median:.1f} | | |", flush=True)

    for record in ("nothing", "results", "results and images"):
        for rate in [float(each) for each in arguments.rates.split(",")]:
            with tempfile.TemporaryDirectory() as folder:
                chain_rate(record, rate, Path(folder), jobs, out, points, background)
    jobs.put(None)
    children[1].join(_LIMIT_S)
    children[0].terminate()


def chain_rate(
    record: str, rate: float, folder: Path, jobs: Any, out: Address, points: int, background: Any
) -> None:
    db = None if record == "nothing" else open_database(folder)

    def make(image: Any, database: Any = None, images: bool = False) -> Any:
        return build_chain(
            KEY, image, diameter=DIAMETER, search_range=50, locate=LOCATE, db=database,
            record_images=images,
        )  # fmt: skip

    warm_up(make, KEY)
    writer = None if db is None else BackgroundWriter(db)
    chain = make(background, writer, "images" in record)
    receiver = DocumentReceiver(out, prefix=b"raw", deserializer=loads)
    server = Server(receiver, chain, writer=writer, say=lambda _: None)
    late: list[float] = []
    ends: list[float] = []

    def note(result: Any) -> None:
        if type(result).__name__ == "PeaksResult":
            ends.append(time.monotonic())
            late.append(chain.tracker.pace.latency_s)

    chain.on_result(note)
    deadline = time.monotonic() + _LIMIT_S
    while not receiver.connected and time.monotonic() < deadline:
        receiver.receive(0.1)
    time.sleep(0.5)  # the subscription goes through the proxy to the publisher
    jobs.put((rate, False))
    counts = chain.mapper.counts
    server.run(lambda: counts.runs > 0 or time.monotonic() > deadline, lambda: None)
    lost = points - chain.tracker.counts.processed
    frames_per_s = (len(ends) - 1) / (ends[-1] - ends[0]) if len(ends) > 1 else 0.0
    print(
        f"| the chain, recording {record}, {rate:g} Hz sent | {frames_per_s:.1f} | {lost}"
        f" | {1e3 * float(np.nanmedian(late)):.0f} |",
        flush=True,
    )
    receiver.close()
    if db is not None and writer is not None:
        writer.close()
        db.close()


if __name__ == "__main__":
    sys.exit(main())
