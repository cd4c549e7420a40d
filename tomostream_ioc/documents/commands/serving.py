"""The server behind the command `serve`, whose libraries take seconds to load."""

from __future__ import annotations

import argparse
import contextlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tomostream_ioc.console import StatusLine, say
from tomostream_ioc.documents.background_writer import SERVER_PATIENCE_S, BackgroundWriter
from tomostream_ioc.documents.commands.ending import Ending
from tomostream_ioc.documents.commands.options import database_of
from tomostream_ioc.documents.commands.serve import Network
from tomostream_ioc.documents.database import Database
from tomostream_ioc.documents.pipeline import Pipeline, build_chain
from tomostream_ioc.documents.read_access import ReadAccess
from tomostream_ioc.documents.server import Server
from tomostream_ioc.documents.silence import Silence
from tomostream_ioc.documents.transport import DocumentPublisher, DocumentReceiver
from tomostream_ioc.documents.transport.serializer import loads, loads_with_pickle
from tomostream_ioc.documents.warm_up import settle, warm_up
from tomostream_ioc.errors import ConfigError, TrackingError
from tomostream_ioc.limits import keep_freed_memory
from tomostream_ioc.tracking import average_frames

log = logging.getLogger(__name__)

_LOCATE = ("percentile", "separation", "minmass", "noise_size", "smoothing_size", "threshold")


def serve(
    args: argparse.Namespace, network: Network, background: np.ndarray | None, ending: Ending
) -> int:
    """Until a signal comes; the exit code. Raises ConfigError: an option that can't be used.

    ``background`` is (n_rows, n_cols), or frames (n, n_rows, n_cols) whose mean is taken.
    """
    keep_freed_memory()  # else the system clears new pages for each image
    if background is not None and background.ndim == 3:
        background = average_frames(background)
    # what it can't use is said before anything is opened
    try:
        warm_up(lambda image: _chain(args, image, None), args.key)
    except TrackingError as error:
        raise ConfigError(str(error)) from error
    with contextlib.ExitStack() as stack:
        db = _database(args, stack)
        receiver = DocumentReceiver(
            network.address,
            prefix=network.prefix,
            deserializer=loads_with_pickle if args.allow_pickle else loads,
            keys=network.keys,
            high_water=args.high_water,
        )
        patience_s = SERVER_PATIENCE_S if "://" in (args.db or "") else float("inf")
        writer = None if db is None else BackgroundWriter(db, patience_s=patience_s)
        if writer is not None:
            stack.callback(writer.close)
        # the database's own images are what `publish --run` names
        own = () if db is None else (db.image_folder,)
        access = ReadAccess.below((*args.read_from, *own))
        chain = _chain(args, background, writer, access.folders)
        line = StatusLine()
        server = Server(
            receiver,
            chain,
            writer=writer,
            record_raw=args.record_raw,
            publisher=_publisher(args, network, chain, stack),
            silence=Silence(args.silent_limit, args.close_after),
            say=lambda text: line.say(text),
        )
        log.info("Documents may name image files in %s", access)
        line.say(f"Ready: listens to {network.address}, prefix {args.prefix!r}")
        _follow(server, receiver, ending, line, args.status_period)
    return 0


def _publisher(
    args: argparse.Namespace, network: Network, chain: Pipeline, stack: contextlib.ExitStack
) -> DocumentPublisher | None:
    """Of the results, where they are wanted."""
    if network.out is None:
        return None
    publisher = DocumentPublisher(
        network.out, prefix=network.out_prefix, keys=network.keys, lossless=False
    )
    stack.callback(publisher.close, 1.0)
    log.info("Results go to %s, prefix %r", network.out, args.out_prefix)
    for stage in chain.stages[0 if args.record_images else 1 :]:
        stage.subscribe(publisher)
    return publisher


def _follow(
    server: Server,
    receiver: DocumentReceiver,
    ending: Ending,
    line: StatusLine,
    status_period_s: float,
) -> None:
    """Until a signal comes."""
    was_connected = False
    settle()

    def tick() -> None:
        nonlocal was_connected
        if receiver.connected and not was_connected:
            was_connected = True
            line.say(f"Connected to {receiver.address}")
        line.show_text(server.status())

    try:
        server.run(ending.__bool__, tick, 0.5 if line.moves else status_period_s)
    finally:
        server.close(f"{ending.signal_name or 'an error'} ended the server before the run did")
        line.end()
    say(f"Ended by {ending.signal_name}: {server.status()}")


def _chain(
    args: argparse.Namespace,
    background: np.ndarray | None,
    db: Any,
    read_from: Sequence[Path] | None = (),
) -> Pipeline:
    given = {name: getattr(args, name) for name in _LOCATE}
    locate = {name: value for name, value in given.items() if value is not None}
    try:
        return build_chain(
            args.key,
            background,
            diameter=args.diameter,
            search_range=args.search_range,
            memory=args.memory,
            locate=locate,
            db=db,
            record_images=args.record_images,
            max_maps=args.max_maps,
            read_from=read_from,
        )
    except TrackingError as error:
        raise ConfigError(str(error)) from error


def _database(args: argparse.Namespace, stack: contextlib.ExitStack) -> Database | None:
    if args.db is None:
        log.warning("Nothing is recorded: there is no --db")
        return None
    return database_of(args.db, stack, readable=args.read_from, images=args.images)
