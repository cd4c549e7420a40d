"""python -m tomostream_ioc.bench: a table of speeds on this machine."""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from statistics import median

from tomostream_ioc.arguments import INTERRUPTED, Parser, count, fail
from tomostream_ioc.bench.engine import EngineBench
from tomostream_ioc.bench.machine import describe, peak_bytes
from tomostream_ioc.bench.peers import compare
from tomostream_ioc.bench.timing import Times
from tomostream_ioc.console import say
from tomostream_ioc.errors import ConfigError, TomoStreamError
from tomostream_ioc.recon.devices import resolve_device

_SIZES = ("512x512", "1024x1024", "2048x2448")
_PEERS = "1024x768"
_PROGRAM = "tomostream_ioc.bench"


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m tomostream_ioc.bench",
        description="Speed of the reconstruction on this machine: median (best) of several runs.",
        epilog="One update is one pixel of a slice and one angle; GUPS are 1e9 updates a second. "
        "Median and best far apart: others use the machine.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--sizes", nargs="+", default=_SIZES, metavar="ROWSxCOLS", help="frames' sizes"
    )
    parser.add_argument("--angles", type=count, default=256, help="angles in the ring (256)")
    parser.add_argument("--batch", type=count, default=16, help="frames that come together (16)")
    parser.add_argument("--repeats", type=count, default=5, help="runs of each (at least 5)")
    parser.add_argument(
        "--peers", nargs="*", default=[], metavar="COLSxANGLES",
        help=f"sizes of one slice that other programs make, too ({_PEERS})",
    )  # fmt: skip
    parser.add_argument("--no-peers", action="store_true", help="leave the other programs out")
    parser.add_argument(
        "--peers-python", default=sys.executable, metavar="PATH",
        help="a Python that has astra-toolbox, algotom or scikit-image (this one)",
    )  # fmt: skip
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:k")
    return parser


def main(argv: Sequence[str]) -> int:
    """Exit code: 0, 1 when a size can't be had here, 2 for a wrong option, 130 for Ctrl-C."""
    try:
        args = build_parser().parse_args(list(argv))
        sizes = [_size(text, "--sizes") for text in args.sizes]
        peers = [] if args.no_peers else args.peers or [_PEERS]
        slices = [_size(text, "--peers") for text in peers]
        if slices and shutil.which(args.peers_python) is None:
            raise ConfigError(f"--peers-python {args.peers_python}: there is no such program")
        device = resolve_device(args.device)
        say("\n".join(describe(device)))
        for n_rows, n_cols in sizes:
            _one_size(n_rows, n_cols, device, args)
        for n_cols, n_angles in slices:
            _one_slice(n_cols, n_angles, args)
    except ConfigError as error:
        return fail(error, _PROGRAM)
    except MemoryError:
        return fail(MemoryError("not enough memory: use smaller sizes"), _PROGRAM, 1)
    except (TomoStreamError, ValueError, OSError) as error:
        return fail(error, _PROGRAM, 1)
    except KeyboardInterrupt:
        return INTERRUPTED
    say(f"\nmost memory that was taken: {peak_bytes() / 2**30:.2f} GiB")
    return 0


def _one_size(n_rows: int, n_cols: int, device: str, args: argparse.Namespace) -> None:
    bench = EngineBench(n_rows, n_cols, args.angles, device, args.batch)
    try:
        where = bench.engine.where
        say(f"\n{n_rows} rows x {n_cols} columns uint16, {args.angles} angles: {where}")
        for name, gups in bench.kernels(args.repeats).items():
            _row(name, gups, "GUPS")
        streaming = bench.streaming(args.repeats)
        for name, ms in streaming.items():
            _row(name, ms, "ms")
        rate = streaming["push a frame"].rate(1e3)
        _row("streaming", rate, "frames/s, all three slices updated")
        _row("", rate.scaled(n_rows * n_cols * 2 / 1e9), "GB/s of raw frames")
    finally:
        bench.engine.release()


def _one_slice(n_cols: int, n_angles: int, args: argparse.Namespace) -> None:
    say(f"\nwhole FBP of one slice, {n_cols} x {n_cols} from {n_angles} angles, on the CPU")
    own_s = None
    for name, times, error, reason in compare(n_cols, n_angles, args.repeats, args.peers_python):
        if not times:
            say(f"  {name:24s}left out: {reason}")
            continue
        own_s = own_s or median(times)
        ms = Times(1e3 * median(times), 1e3 * min(times))
        ratio = median(times) / own_s
        text = f"ms, {ratio:.1f} x, error {100 * error:.2f} %"
        _row(name, ms, text)


def _row(name: str, figure: Times, unit: str) -> None:
    say(f"  {name:24s}{figure!s:>18s} {unit}")


def _size(text: str, option: str) -> tuple[int, int]:
    """Raises ConfigError: not two numbers with an x between."""
    rows, _, cols = text.partition("x")
    if not (rows.isdecimal() and cols.isdecimal() and int(rows) and int(cols)):
        raise ConfigError(f"{option} {text}: give two sizes, for example 2048x2448")
    return int(rows), int(cols)
