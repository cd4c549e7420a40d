"""`publish`: send a run of the database, or the frames of a file, as if it were measured now."""

from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import Iterator
from typing import Any

from tqdm import tqdm

from tomostream_ioc.arguments import count, named, path
from tomostream_ioc.console import say
from tomostream_ioc.documents.commands.ending import Ended, Ending
from tomostream_ioc.documents.commands.options import (
    FORMAT_HELP,
    add_command,
    add_database,
    add_publishing,
    database_of,
    publisher_of,
    said_unheard,
    sizes,
)
from tomostream_ioc.documents.frame_file import FrameFile
from tomostream_ioc.documents.old_broker import PREFIX, OldBroker, is_old_broker
from tomostream_ioc.documents.run_names import resolve_uid
from tomostream_ioc.errors import ConfigError, TrackingError

_POINTS = frozenset({"event", "stream_datum"})


def add_to(commands: Any) -> None:
    parser = add_command(
        commands,
        "publish",
        f"Images that the database keeps in files stay there: documents point to them, and who"
        f" listens reads them. Frames of --file travel inside the documents. {FORMAT_HELP}",
    )
    add_publishing(parser, rate_hz=10.0)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--run",
        dest="uid",
        type=named,
        metavar="UID",
        help="a run of the database --db, by its first characters; -1 is the last raw one",
    )
    source.add_argument("--file", type=path, metavar="SCAN.h5", help="frames of a grid scan")
    add_database(parser, f"with --run ({PREFIX}NAME: a catalog of databroker 1.x)")
    frames = parser.add_argument_group(
        "with --file (defaults: the attributes shape, snaking, extents and frames_per_point)"
    )
    frames.add_argument("--dataset", metavar="PATH", help="default /entry/data/data")
    frames.add_argument("--shape", type=sizes, metavar="ROWSxCOLS", help="points, slow axis first")
    frames.add_argument(
        "--snaking",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="whether the fast axis goes back and forth",
    )
    frames.add_argument("--frames-per-point", type=count, metavar="N")
    frames.add_argument(
        "--key",
        type=named,
        default="dexela_image",
        help="data key of the images (default %(default)s)",
    )
    parser.set_defaults(command=run)


def run(args: argparse.Namespace) -> int:
    if (args.uid is None) != (args.db is None):
        raise ConfigError("--run and --db go together: a run's uid, and where it is")
    with contextlib.ExitStack() as stack:
        total, documents = _recorded(args, stack) if args.uid else _of_file(args)
        Ending(raising=True)
        publisher = publisher_of(args)
        stack.callback(publisher.close)
        bar = stack.enter_context(tqdm(total=total, desc="Points", unit="point", disable=None))
        began = time.monotonic()
        uid, stop, n_points, ended = "", False, 0, False
        try:
            for name, doc in documents:
                if name in _POINTS:
                    _wait(began, n_points, args.rate)
                publisher(name, doc)
                if name in _POINTS:
                    n = _points(name, doc)
                    n_points += n
                    bar.update(n)
                uid = doc["uid"] if name == "start" else uid
                stop = stop or name == "stop"
        except Ended as end:
            ended = True
            say(f"Ended by {end}: the run has no stop")
        seconds = time.monotonic() - began
        bar.close()
        if not stop:
            say(f"Run {uid} was sent without a stop: it is not whole")
        say(f"Sent run {uid}: {n_points} points, {publisher.sent} documents in {seconds:.1f} s")
        return int(said_unheard(publisher) and args.wait > 0 and not ended)


def _points(name: str, doc: Any) -> int:
    """Points whose images the document brings; events whose images come by StreamDatum: none."""
    if name == "stream_datum":
        return int(doc["indices"]["stop"]) - int(doc["indices"]["start"])
    return int(any(getattr(value, "ndim", 0) >= 2 for value in doc["data"].values()))


def _wait(began: float, n_points: int, rate_hz: float) -> None:
    if rate_hz:
        time.sleep(max(began + n_points / rate_hz - time.monotonic(), 0.0))


def _recorded(
    args: argparse.Namespace, stack: contextlib.ExitStack
) -> tuple[int | None, Iterator[tuple[str, Any]]]:
    db: Any
    if is_old_broker(args.db):
        try:
            db = stack.enter_context(OldBroker(args.db.removeprefix(PREFIX)))
        except TrackingError as error:
            raise ConfigError(f"--db {error}") from error
    else:
        db = database_of(args.db, stack, must_exist=True)
    recorded = db[_uid(db, args.uid)]
    return recorded.start.get("num_points"), recorded.documents()


def _uid(db: Any, text: str) -> str:
    """Of any run by its uid or the first characters of it; -1 is the last raw one."""
    if text in db:
        return text
    counts_back = text.startswith("-")
    uids = [uid for uid in db if not counts_back or "analysis_stage" not in db[uid].start]
    try:
        return resolve_uid(uids, text)
    except TrackingError as error:
        raise ConfigError(f"--run {text}: {error}") from error


def _of_file(args: argparse.Namespace) -> tuple[int, Iterator[tuple[str, Any]]]:
    file = FrameFile(
        args.file,
        args.key,
        dataset=args.dataset,
        shape=args.shape,
        snaking=args.snaking,
        frames_per_point=args.frames_per_point,
    )
    return file.n_points(), file.documents()
