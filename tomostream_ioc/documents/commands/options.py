"""Options that several commands share, and what they make of them."""

from __future__ import annotations

import argparse
import contextlib
import logging
import pickle
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tomostream_ioc.arguments import named, not_negative, path
from tomostream_ioc.documents.transport.address import Address, prefix_bytes
from tomostream_ioc.documents.transport.curve import CurveKeys, warn_if_open
from tomostream_ioc.documents.transport.publisher import DocumentPublisher
from tomostream_ioc.documents.transport.serializer import WireError, dumps
from tomostream_ioc.errors import ConfigError, TrackingError

if TYPE_CHECKING:
    from tomostream_ioc.documents.database import Database

log = logging.getLogger(__name__)

FORMAT_HELP = (
    "Documents travel as MessagePack, arrays in it as the package msgpack_numpy writes them: such"
    " bytes can't run code. bluesky's own default is pickle, which can run any code where it is"
    " read, so pickled documents are refused unless --allow-pickle says that all who can publish"
    " are trusted."
)


#: what each command does, in the order of --help
SUMMARIES = {
    "serve": "find, link and map the peaks of images that come over ZeroMQ",
    "proxy": "forward documents from publishers to listeners",
    "publish": "send a recorded run, or frames in an HDF5 file, over ZeroMQ",
    "simulate": "scan a synthetic crystal rod by bluesky's run engine, and publish it",
    "plot": "draw the crystal maps of a recorded scan",
    "keys": "make CURVE keys of a proxy and a client for --curve-keys",
}


def add_command(commands: Any, name: str, description: str = "") -> Any:
    """A parser of its own for one command, with the options that all have."""
    summary = SUMMARIES[name]
    parser = commands.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}. {description}",
        allow_abbrev=False,
    )
    running = parser.add_argument_group("running")
    levels = ["DEBUG", "INFO", "WARNING", "ERROR"]
    running.add_argument("--log-level", default="INFO", choices=levels)
    running.add_argument("--log-format", default="text", choices=["text", "json"])
    return parser


def add_network(parser: Any) -> Any:
    """The group of options of all that connects to a proxy."""
    group = parser.add_argument_group("network")
    group.add_argument(
        "--prefix",
        default="raw",
        metavar="WORD",
        help="first word of each message (default raw; '' for none, or any)",
    )
    add_keys(group)
    return group


def add_keys(group: Any) -> None:
    group.add_argument(
        "--curve-keys",
        metavar="DIR",
        type=path,
        help="CURVE keys: encrypted, and only known clients; `keys DIR` makes them",
    )


def add_publishing(parser: Any, rate_hz: float) -> None:
    """Options of what publishes."""
    network = add_network(parser)
    network.add_argument(
        "--to",
        default="localhost:5567",
        metavar="HOST:PORT",
        help="the proxy's first port (default %(default)s)",
    )
    network.add_argument(
        "--rate",
        type=not_negative,
        default=rate_hz,
        metavar="HZ",
        help="points per second at most, 0 for no limit: a listener that is too slow loses what a"
        " proxy can't hold (default %(default)g)",
    )
    network.add_argument(
        "--pickle",
        action="store_true",
        help="send pickles, as bluesky's own Publisher does (listeners here need --allow-pickle)",
    )
    network.add_argument(
        "--wait",
        type=not_negative,
        default=10.0,
        metavar="S",
        help="for somebody who listens, at most (default %(default)g s); 0 sends at once, heard or"
        " not",
    )


def publisher_of(args: argparse.Namespace) -> DocumentPublisher:
    """A publisher that somebody listens to.

    Raises ConfigError: a wrong address, or a key is missing. WireError: nobody listens; with
    ``--wait 0`` that is not looked at.
    """
    address = Address.parse(args.to, "--to")
    keys = keys_of(args)
    check_reach(address, keys, pickles=False)
    publisher = DocumentPublisher(
        address,
        prefix=prefix_bytes(args.prefix),
        serializer=pickle.dumps if args.pickle else dumps,
        keys=keys,
    )
    try:
        log.info("Documents are %s", "pickled" if args.pickle else "MessagePack")
        if args.wait and not publisher.wait_for_listener(args.wait):
            raise WireError(_nobody(publisher, args))
    except BaseException:
        publisher.close(0.0)
        raise
    return publisher


def _nobody(publisher: DocumentPublisher, args: argparse.Namespace) -> str:
    if publisher.refusal:
        return f"--to {publisher.address}: {publisher.refusal}; nothing is sent"
    if not publisher.connected:
        return (
            f"--to {publisher.address}: no proxy answers within {args.wait:g} s (--wait);"
            " nothing is sent"
        )
    return (
        f"--to {publisher.address}: nobody listens to the prefix {args.prefix!r} within"
        f" {args.wait:g} s (--wait); nothing is sent (--wait 0 sends all the same)"
    )


def said_unheard(publisher: DocumentPublisher) -> bool:
    """Say how many documents went while nobody listened; whether there were any."""
    if publisher.unheard:
        log.error(
            "%d of %d documents were sent while nobody listened at %s: they are lost",
            publisher.unheard,
            publisher.sent,
            publisher.address,
        )
    return publisher.unheard > 0


def keys_of(args: argparse.Namespace, *, binds: bool = False) -> CurveKeys | None:
    """Raises ConfigError: a key is missing."""
    if args.curve_keys is None:
        return None
    keys = CurveKeys(args.curve_keys)
    keys.check(binds=binds)
    return keys


def check_reach(address: Address, keys: CurveKeys | None, *, pickles: bool) -> None:
    """Pickles come from this host, or from who has a key. Raises ConfigError."""
    if pickles and keys is None and not address.is_loopback:
        raise ConfigError(
            f"--allow-pickle with {address}: whoever reaches that port could run code here;"
            " use --curve-keys DIR, or a proxy on this host"
        )
    warn_if_open(address, keys)


def add_database(group: Any, help_text: str, *, required: bool = False) -> None:
    """Options of what reads or writes a database."""
    group.add_argument(
        "--db",
        type=named,
        metavar="DIR",
        required=required,
        help=f"{help_text}: a folder, or the URI of a Tiled server (http://host:8000), whose key is"
        " in the environment variable TILED_API_KEY",
    )


def database_of(
    where: str, stack: contextlib.ExitStack, *, must_exist: bool = False, **options: Any
) -> Database:
    """The database of --db, closed with ``stack``. Raises ConfigError: there is none."""
    if "://" in where and not where.startswith(("http://", "https://")):
        raise ConfigError(f"--db {where}: give a folder, or a URI such as http://host:8000")
    if must_exist and "://" not in where and not (Path(where) / "catalog.db").is_file():
        raise ConfigError(f"--db {where}: there is no database")
    from tomostream_ioc.documents.database import open_database  # takes seconds

    try:
        return stack.enter_context(open_database(where, **options))
    except TrackingError as error:
        raise ConfigError(f"--db: {error}") from error


def sizes(text: str) -> tuple[int, ...]:
    """ "12x15" or "12,15"; for options that take a grid or an image size in one word."""
    try:
        values = tuple(int(part) for part in text.replace(",", "x").split("x"))
    except ValueError:
        values = ()
    if not values or any(value < 1 for value in values):
        raise argparse.ArgumentTypeError(f"{text!r} is no size such as 12x15")
    return values
