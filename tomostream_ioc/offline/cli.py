"""python -m tomostream_ioc.recon: the command line."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from tomostream_ioc.arguments import INTERRUPTED, Parser, fail, path, positive, real
from tomostream_ioc.config import size_bytes
from tomostream_ioc.console import say
from tomostream_ioc.errors import CenterError, ConfigError, TomoStreamError
from tomostream_ioc.model.center import CenterEstimate
from tomostream_ioc.model.params import DEZINGER_RADII, FILTER_TYPES, RING_REMOVALS, ReconParams
from tomostream_ioc.offline.job import FileReconstruction
from tomostream_ioc.offline.output import check_output, check_panels, save
from tomostream_ioc.offline.plan import Wanted
from tomostream_ioc.recon.devices import resolve_device
from tomostream_ioc.recon.memory import Budget
from tomostream_ioc.scan_file import ScanFile

#: the scan is kept in memory up to that size, else read as it is needed
_SCAN_IN_MEMORY = 2 << 30
#: where the system does not say how much memory is free
_UNKNOWN_FREE = 4 << 30
_PROGRAM = "tomostream_ioc.recon"
#: options of phase retrieval: unit and meaning
_PHASE = {
    "--energy": ("KEV", "of the X-rays, in keV"),
    "--distance": ("MM", "sample to detector, in mm"),
    "--alpha": ("ALPHA", "regularisation: beta / (4 pi^2 delta)"),
    "--pixel-size": ("UM", "of a pixel at the sample, in micrometres"),
}
#: as the records RotX, RotY and RotZ
_MOST_TILT_DEG = 180
#: a half turn in radians is 3.14: angles of a scan that go over less than this may be no degrees
_RADIANS_DEG = 6.3


def build_parser() -> Parser:
    parser = Parser(
        prog=f"python -m {_PROGRAM}",
        description="Reconstruct slices of a scan file (DXfile) by the engine of the live stream.",
        epilog="Example: python -m tomostream_ioc.recon scan.h5 --slice z=67 -o z.png",
        allow_abbrev=False,
    )
    parser.add_argument("scan", type=path, help="DXfile with exchange/data, data_dark, ...")
    parser.add_argument(
        "--center",
        type=_column,
        metavar="COLUMN",
        help="rotation axis: detector column, or auto to search for it (default)",
    )
    parser.add_argument(
        "--slice",
        action="append",
        default=[],
        metavar="AXIS=INDEX",
        dest="slices",
        help="z=67, y=70,80 or x=0:100:10; may be given again (default: the three middle slices)",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=path,
        default=Path("slices.png"),
        help=".png or .h5 (default slices.png)",
    )
    parser.add_argument("--filter", default="Parzen", choices=FILTER_TYPES)
    parser.add_argument("--dezinger", type=int, default=0, choices=DEZINGER_RADII)
    parser.add_argument("--ring-removal", default="None", choices=RING_REMOVALS)
    for axis, plane in (("x", "the y-z slices"), ("y", "the x-z slices"), ("z", "the z slices")):
        parser.add_argument(
            f"--rot-{axis}",
            type=_tilt,
            default=0.0,
            metavar="DEG",
            help=f"tilt of {plane}, -{_MOST_TILT_DEG} to {_MOST_TILT_DEG}",
        )
    phase = parser.add_argument_group("phase retrieval (all four)")
    for option, (unit, meaning) in _PHASE.items():
        phase.add_argument(option, type=positive, default=0.0, metavar=unit, help=meaning)
    parser.add_argument(
        "--device", default="auto", help="auto, cpu, cuda or cuda:k (default auto: CUDA if there)"
    )
    parser.add_argument(
        "--memory-limit", metavar="SIZE", help="for example 8G (default: what is free)"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress, no summary")
    return parser


def main(argv: Sequence[str]) -> int:
    """Exit code: 0, 1 when it failed, 2 for a wrong option or file, 130 for Ctrl-C."""
    try:
        _run(build_parser().parse_args(list(argv)))
    except ConfigError as error:
        return fail(error, _PROGRAM)
    except MemoryError:
        return fail(MemoryError("not enough memory"), _PROGRAM, 1)
    except (TomoStreamError, OSError) as error:
        return fail(error, _PROGRAM, 1)
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0


def _run(args: argparse.Namespace) -> None:
    check_output(args.output, args.scan)
    scan = ScanFile(args.scan, _SCAN_IN_MEMORY)
    try:
        began_s = time.monotonic()
        device = resolve_device(args.device)
        memory_bytes = _memory_bytes(args.memory_limit, device)
        job = FileReconstruction(scan, device, memory_bytes)
        n_rows, n_cols = scan.shape
        wanted = Wanted.parse(args.slices, n_rows, n_cols)
        check_panels(args.output, wanted)
        _check_angles(args.scan, scan.theta_deg)
        params = _params(args, scan)
        plan = job.plan(wanted, params)
        _tell_of_pixels(job.n_unusable, n_rows * n_cols)
        if args.center is None:
            row = wanted.z[len(wanted.z) // 2] if wanted.z else n_rows // 2
            try:
                with _bar(args, "Centre", scan.n_projections) as bar:
                    estimate = job.find_center(params, row, bar.update)
            except CenterError as error:
                raise CenterError(f"{error}: give --center") from error
            _tell(args, _in_words(estimate))
            params = replace(params, center=estimate.center)
        with _bar(args, "Projections", len(plan) * scan.n_projections) as bar:
            slices = job.slices(wanted, params, plan, bar.update)
        if not any(images.any() for images in (slices.z, slices.y, slices.x)):
            _warn("the slices are 0 everywhere: the projections differ nowhere from the flat field")
        save(args.output, slices, args.scan)
        _tell(
            args,
            f"{len(wanted)} slice{'s' if len(wanted) > 1 else ''} from {scan.n_projections} "
            f"projections of {n_cols} x {n_rows} in "
            f"{time.monotonic() - began_s:.1f} s: {args.output}",
        )
    finally:
        scan.close()


def _memory_bytes(limit: str | None, device: str) -> int:
    """What an engine may take. Raises ConfigError: ``limit`` is no size."""
    free = Budget.now(device, size_bytes("--memory-limit", limit)).on_device
    return _UNKNOWN_FREE if free is None else free


def _in_words(found: CenterEstimate) -> str:
    why = f" ({found.reason})" if found.reason else ""
    doubt = "" if found.trusted else ": give --center if the slices look doubled"
    return f"Centre of rotation {found.center:.2f}, confidence {found.confidence:.2f}{why}{doubt}"


def _params(args: argparse.Namespace, scan: ScanFile) -> ReconParams:
    """Raises ConfigError, ParameterError: a value that can't be used."""
    n_rows, n_cols = scan.shape
    given = [vars(args)[option.lstrip("-").replace("-", "_")] for option in _PHASE]
    if any(given) and not all(given):
        missing = [option for option, value in zip(_PHASE, given, strict=True) if not value]
        raise ConfigError(
            f"phase retrieval needs {', '.join(_PHASE)}: give {' and '.join(missing)}"
        )
    return ReconParams(
        center=(n_cols - 1) / 2 if args.center is None else args.center,
        ortho_x=n_cols // 2,
        ortho_y=n_cols // 2,
        ortho_z=n_rows // 2,
        rot_x_deg=args.rot_x,
        rot_y_deg=args.rot_y,
        rot_z_deg=args.rot_z,
        filter_type=args.filter,
        dezinger=args.dezinger,
        ring_removal=args.ring_removal,
        energy_kev=args.energy,
        distance_mm=args.distance,
        alpha=args.alpha,
        pixel_size_um=args.pixel_size,
    )


def _check_angles(path: Path, theta_deg: np.ndarray) -> None:
    """Raises ConfigError: angles that show no object from two sides."""
    span_deg = float(np.ptp(theta_deg))
    if span_deg == 0:
        raise ConfigError(
            f"{path}: every angle in exchange/theta is {theta_deg[0]:g} degrees: slices need "
            "projections from different sides"
        )
    if span_deg < _RADIANS_DEG:
        _warn(
            f"the angles in exchange/theta go over {span_deg:.3g} degrees only: if they are in "
            "radians, write degrees there"
        )


def _tell_of_pixels(n_unusable: int, n_pixels: int) -> None:
    """Raises ConfigError: there is no pixel to make slices from."""
    if n_unusable == n_pixels:
        raise ConfigError(
            "exchange/data_white is nowhere above exchange/data_dark: take dark and flat fields "
            "that can be used"
        )
    if n_unusable:
        _warn(
            f"{n_unusable} of {n_pixels} pixels have no usable dark and flat field, their "
            "neighbours stand in for them"
        )


def _tilt(text: str) -> float:
    value = real(text)
    if not -_MOST_TILT_DEG <= value <= _MOST_TILT_DEG:
        raise argparse.ArgumentTypeError(f"give {-_MOST_TILT_DEG} to {_MOST_TILT_DEG} degrees")
    return value


def _column(text: str) -> float | None:
    """None: the axis is searched for."""
    if text == "auto":
        return None
    try:
        float(text)
    except ValueError:
        raise argparse.ArgumentTypeError("give a detector column or auto") from None
    return real(text)


def _bar(args: argparse.Namespace, what: str, total: int) -> tqdm:
    """A progress bar on a terminal; nothing elsewhere."""
    return tqdm(total=total, desc=what, unit="frame", disable=True if args.quiet else None)


def _warn(text: str) -> None:
    """Also where no summary is wanted."""
    print(f"{_PROGRAM}: {text}", file=sys.stderr, flush=True)


def _tell(args: argparse.Namespace, text: str) -> None:
    if not args.quiet:
        say(text)
