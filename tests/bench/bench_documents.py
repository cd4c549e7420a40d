"""Images a second through the chain: ZeroMQ, peaks, links, maps and database, as `serve` does.

    python tests/bench/bench_documents.py [--size 2048] [--points 300] [--rates 20,40] [--repeat 1]
        [--record nothing results images] [--no-parts]

Beside it, in the same run, ZeroMQ alone with our serializer and with bluesky's, and trackpy alone.
Publisher and proxy are processes of their own, on the same cores. A rate is kept where no frame is
lost and the last result comes within a second of the last frame. CPU: of one core, in ms a frame,
until all is stored.
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import os
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
from tomostream_ioc.documents.warm_up import settle, warm_up
from tomostream_ioc.limits import keep_freed_memory
from tomostream_ioc.tracking import Locator
from tomostream_ioc.tracking.rod import CrystalRod

KEY = "dexela_image"
LOCATE: dict[str, Any] = {"percentile": 80, "separation": 100}
DIAMETER = 15
ROW = 10
_LIMIT_S = 120.0
RECORD = {"nothing": "nothing", "results": "results", "images": "results and images"}


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
    while (job := rates.get()) is not None:
        rate, pickled = job
        publisher.wait_for_listener(_LIMIT_S)
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
    parser.add_argument("--points", type=int, default=300)
    parser.add_argument("--rates", default="20,40")
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--record", nargs="+", choices=list(RECORD), default=list(RECORD))
    parser.add_argument("--no-parts", action="store_true", help="only the chain")
    arguments = parser.parse_args()
    logging.disable(logging.INFO)
    keep_freed_memory()  # as serve does
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
    print(f"{size} x {size} uint16, {points} points of one frame, {load()}")
    print("| what | frames/s | lost | median, last ms late | CPU: server, publisher, proxy |")
    print("| --- | --- | --- | --- | --- |")
    if not arguments.no_parts:
        parts(images, points, jobs, out)
    pids = [child.pid or 0 for child in (children[1], children[0])]
    for record in arguments.record:
        for rate in [float(each) for each in arguments.rates.split(",")] * arguments.repeat:
            with tempfile.TemporaryDirectory() as folder:
                chain_rate(record, rate, Path(folder), jobs, out, points, background, pids)
    print(load())
    jobs.put(None)
    children[1].join(_LIMIT_S)
    children[0].terminate()


def parts(images: np.ndarray, points: int, jobs: Any, out: Address) -> None:
    for name, pickled in (("MessagePack", False), ("pickle", True)):
        receiver = DocumentReceiver(out, prefix=b"raw", deserializer=loads_with_pickle)
        jobs.put((60.0, pickled))
        n, took = receive_alone(receiver)
        receiver.close()
        rate = (n - 1) / took
        print(f"| ZeroMQ alone, {name}, 60 Hz sent | {rate:.1f} | {points - n} | | |", flush=True)
    image = images[0].astype(np.float32)
    theirs = seconds(lambda: trackpy.locate(image, DIAMETER, **LOCATE), 3)
    with Locator(DIAMETER, **LOCATE) as locator:
        ours = seconds(lambda: locator.locate(image), 20)
    for name, took in (("trackpy.locate alone", theirs), ("Locator alone", ours)):
        print(f"| {name} | {1 / took.median:.1f} | | | |", flush=True)


def load() -> str:
    return f"load average {' '.join(f'{each:.1f}' for each in os.getloadavg())}"


def cpu_s(pid: int) -> float:
    """CPU time that a process has taken."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def chain_rate(
    record: str,
    rate: float,
    folder: Path,
    jobs: Any,
    out: Address,
    points: int,
    background: Any,
    others: list[int],
) -> None:
    db = None if record == "nothing" else open_database(folder)

    def make(image: Any, database: Any = None, images: bool = False) -> Any:
        return build_chain(
            KEY, image, diameter=DIAMETER, search_range=50, locate=LOCATE, db=database,
            record_images=images,
        )  # fmt: skip

    warm_up(make, KEY)
    writer = None if db is None else BackgroundWriter(db)
    chain = make(background, writer, record == "images")
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
    settle()  # as serve does
    pids = [os.getpid(), *others]
    before = [cpu_s(pid) for pid in pids]
    jobs.put((rate, False))
    counts = chain.mapper.counts
    server.run(lambda: counts.runs > 0 or time.monotonic() > deadline, lambda: None)
    if writer is not None:
        writer.flush()
    took = [1e3 * (cpu_s(pid) - began) / points for pid, began in zip(pids, before, strict=True)]
    lost = points - chain.tracker.counts.processed
    failed = "" if writer is None or not writer.failed else f", {writer.failed} not recorded"
    frames_per_s = (len(ends) - 1) / (ends[-1] - ends[0]) if len(ends) > 1 else 0.0
    print(
        f"| the chain, recording {RECORD[record]}, {rate:g} Hz sent | {frames_per_s:.1f}"
        f" | {lost}{failed} | {1e3 * float(np.nanmedian(late)):.0f}, {1e3 * late[-1]:.0f}"
        f" | {', '.join(f'{each:.1f}' for each in took)} |",
        flush=True,
    )
    receiver.close()
    if db is not None and writer is not None:
        writer.close()
        db.close()


if __name__ == "__main__":
    sys.exit(main())
