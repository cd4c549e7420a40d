"""`serve`: listen to documents, find and link their peaks, fill maps, and record it all."""

from __future__ import annotations

import argparse
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tomostream_ioc.arguments import (
    count,
    folder,
    named,
    not_negative,
    path,
    positive,
    warn_of_missing,
    whole,
)
from tomostream_ioc.console import say
from tomostream_ioc.documents.commands.ending import Ending
from tomostream_ioc.documents.commands.options import (
    FORMAT_HELP,
    add_command,
    add_database,
    add_network,
    check_reach,
    keys_of,
)
from tomostream_ioc.documents.silence import DEFAULT_SILENCE
from tomostream_ioc.documents.transport.address import Address, prefix_bytes
from tomostream_ioc.documents.transport.curve import CurveKeys
from tomostream_ioc.documents.transport.proxy import HIGH_WATER
from tomostream_ioc.errors import ConfigError

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Network:
    """Where documents come from, and where results go: nowhere, if ``out`` is None."""

    address: Address
    prefix: bytes
    keys: CurveKeys | None
    out: Address | None
    out_prefix: bytes


def add_to(commands: Any) -> None:
    parser = add_command(
        commands,
        "serve",
        f"{FORMAT_HELP} SIGTERM and Ctrl-C end it; a run that is open then is recorded as far as"
        " it came, marked as partial.",
    )
    network = add_network(parser)
    network.add_argument(
        "--in",
        dest="address",
        default="localhost:5568",
        metavar="HOST:PORT",
        help="the proxy's second port (default %(default)s)",
    )
    network.add_argument(
        "--allow-pickle",
        action="store_true",
        help="take documents of an unchanged bluesky Publisher too; RUNS CODE from the network",
    )
    network.add_argument(
        "--high-water",
        type=count,
        default=HIGH_WATER,
        metavar="N",
        help="messages that wait here at most (default %(default)s)",
    )
    network.add_argument(
        "--out", metavar="HOST:PORT", help="publish what is found there (a proxy's first port)"
    )
    network.add_argument(
        "--out-prefix", default="results", metavar="WORD", help="its prefix (default %(default)s)"
    )

    images = parser.add_argument_group("images")
    images.add_argument(
        "--key", type=named, required=True, help="data key of the images, e.g. dexela_image"
    )
    images.add_argument(
        "--read-from",
        nargs="+",
        default=[],
        type=folder,
        metavar="DIR",
        help="folders in which documents may name image files (default none but that of the"
        " database's own images: whoever publishes would say what is read here; / for any)",
    )
    images.add_argument(
        "--background",
        type=path,
        metavar="FILE.npy",
        help="image of an empty point, or several frames of it, that is subtracted",
    )

    peaks = parser.add_argument_group("peaks (trackpy.locate)")
    peaks.add_argument("--diameter", type=count, required=True, metavar="PIXELS", help="odd")
    peaks.add_argument("--percentile", type=not_negative, metavar="P")
    peaks.add_argument("--separation", type=positive, metavar="PIXELS")
    peaks.add_argument("--minmass", type=not_negative, metavar="MASS")
    peaks.add_argument("--noise-size", type=positive, metavar="PIXELS")
    peaks.add_argument("--smoothing-size", type=count, metavar="PIXELS")
    peaks.add_argument("--threshold", type=not_negative, metavar="COUNTS")

    links = parser.add_argument_group("tracks (trackpy.link)")
    links.add_argument("--search-range", type=positive, required=True, metavar="PIXELS")
    links.add_argument(
        "--memory",
        type=whole,
        metavar="N",
        help="frames that a peak may be missing (default: the points of a row of the scan)",
    )

    results = parser.add_argument_group("results")
    add_database(results, "database (default: nothing is recorded), made if it is not there")
    results.add_argument(
        "--images",
        type=path,
        metavar="DIR",
        help="where images are written that the database keeps; a Tiled server must be able to"
        " read it under the same path (default DIR/images, with a server ./images)",
    )
    results.add_argument(
        "--record-raw", action="store_true", help="record the runs that come in as well"
    )
    results.add_argument("--record-images", action="store_true", help="... and processed images")
    results.add_argument(
        "--max-maps", type=count, default=1000, metavar="N", help="per run (default %(default)s)"
    )
    results.add_argument(
        "--silent-limit",
        type=positive,
        default=DEFAULT_SILENCE.limit_s,
        metavar="S",
        help="a run of which no document came for so long is silent: it may go on, but is closed as"
        " partial when another run begins (default %(default)g s)",
    )
    results.add_argument(
        "--close-after",
        type=positive,
        default=DEFAULT_SILENCE.close_after_s,
        metavar="S",
        help="... and after so long in any case (default %(default)g s)",
    )
    results.add_argument(
        "--status-period",
        type=positive,
        default=5.0,
        metavar="S",
        help="of the line that says how it goes (default %(default)s s; on a terminal 0.5 s)",
    )
    parser.set_defaults(command=run)


def run(args: argparse.Namespace) -> int:
    if args.images is not None and args.db is None:
        raise ConfigError("--images needs --db")
    if (args.record_raw or args.record_images) and args.db is None:
        raise ConfigError("--record-raw and --record-images need --db")
    network = _network(args)
    background = None if args.background is None else read_background(args.background)
    _warn(args)
    ending = Ending()
    say("Loading: some seconds, up to a minute where nothing was compiled before ...")
    # here, not above: the database and the peaks' libraries take seconds, wrong options do not
    from tomostream_ioc.documents.commands.serving import serve

    return serve(args, network, background, ending)


def _network(args: argparse.Namespace) -> Network:
    address = Address.parse(args.address, "--in")
    keys = keys_of(args)
    check_reach(address, keys, pickles=args.allow_pickle)
    out = None if args.out is None else Address.parse(args.out, "--out")
    if out is not None and args.prefix in ("", args.out_prefix):
        raise ConfigError(
            f"--out-prefix {args.out_prefix!r} with --prefix {args.prefix!r}: the server would hear"
            " its own results; give two different prefixes"
        )
    prefix = prefix_bytes(args.prefix)
    out_prefix = prefix_bytes(args.out_prefix, "--out-prefix")
    if out is not None:
        check_reach(out, keys, pickles=False)
    return Network(address, prefix, keys, out, out_prefix)


def _warn(args: argparse.Namespace) -> None:
    """Of what is as it was asked for, but perhaps not as it was meant."""
    if args.allow_pickle:
        log.warning("Pickled documents are taken: whoever can publish can run code here")
    else:
        log.info("Documents are MessagePack; pickled ones are refused (see --allow-pickle)")
    warn_of_missing("--read-from", args.read_from)


def read_background(file: Path) -> np.ndarray:
    """(n_rows, n_cols), or several frames of that. Raises ConfigError."""
    try:
        image = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ConfigError(f"--background {file} can't be read: {error}") from error
    usable = isinstance(image, np.ndarray) and image.dtype.kind in "biuf" and image.ndim in (2, 3)
    if not usable:
        raise ConfigError(f"--background {file}: an array of one image, or of frames, is needed")
    if not image.size:
        raise ConfigError(f"--background {file}: it is empty, its shape is {image.shape}")
    if not np.isfinite(image).any():
        raise ConfigError(f"--background {file}: it holds no finite number, take it again")
    return image
