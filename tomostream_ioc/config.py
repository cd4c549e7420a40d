"""Frozen settings of the program, from the command line, macros and a substitutions file."""

from __future__ import annotations

import argparse
import math
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tomostream_ioc import __version__
from tomostream_ioc.arguments import Parser, folder, ipv4, path, seconds
from tomostream_ioc.errors import ConfigError

#: macros of the records' initial values: name -> (default, what it is)
MACROS: Mapping[str, tuple[str, str]] = {
    "TOMO_SCAN": ("$(P)TomoScanStream:", "prefix of the tomoScan IOC; '' = there is none"),
    "IMAGE_P": (
        "$(TOMO_SCAN)PvaPluginPVPrefix",
        "CA record that holds the PVA plugin's prefix, or the image channel itself",
    ),
    "DARK_PVA": ("$(TOMO_SCAN)StreamDarkFields", "PVA channel of the averaged dark field"),
    "FLAT_PVA": ("$(TOMO_SCAN)StreamFlatFields", "PVA channel of the averaged flat field"),
    "THETA_PVA": ("$(TOMO_SCAN)StreamTheta", "PVA channel of the angles"),
    "RECON_PVA": ("$(P)$(R)StreamRecon", "PVA channel that the slices are served on"),
    "CRYSTAL_PVA": ("", "PVA image channel of a diffraction detector, for peak tracking"),
    "CAMERA": ("", "prefix of the camera"),
    "MCT_OPTICS": ("", "prefix of the MCTOptics IOC"),
    "TOMO_0_DEG": ("", "sample motor along the beam-normal axis at 0 degrees"),
    "TOMO_90_DEG": ("", "sample motor along the beam-normal axis at 90 degrees"),
    "SAMPLE_Y": ("", "vertical sample motor"),
    "ROI_PLUGIN": ("", "prefix of the ROI plugin"),
}

SubstitutionsReader = Callable[[Path], dict[str, str]]

_MAX_STRINGOUT = 39
_MAX_PV_NAME = 60
_LONGEST_RECORD = len("Crystal:BackgroundFrames")
_SIZE = re.compile(r"(\d+(?:\.\d*)?) ?([KMGT]?)(B|iB)?", re.IGNORECASE)
#: a dot begins a field, a brace a filter of Channel Access; the rest is as in EPICS base
NOT_IN_NAMES = re.compile(r"[^!-~]|[.{}$\"'\\]")
_MACRO = re.compile(r"\$[({](\w+)[)}]")


@dataclass(frozen=True, slots=True)
class Config:
    """What the program runs with. ``macros`` are whole: defaults filled in, references resolved."""

    prefix_p: str
    prefix_r: str
    given: frozenset[str] = frozenset()  # macros that the command line itself gave
    macros: Mapping[str, str] = field(default_factory=dict)
    autosave_dir: Path | None = None  # None: settings are neither restored nor kept
    autosave_period_s: float = 30.0
    autosave_sequence_period_s: float = 60.0
    device: str = "auto"
    memory_limit: int | None = None  # bytes on the device that computes; None: what is free
    interfaces: tuple[str, ...] = ()
    access_security: Path | None = None  # None: who reaches the interfaces may read and write
    read_from: tuple[Path, ...] = ()  # where bluesky documents may name files
    curve_keys: Path | None = None  # folder of CURVE keys; None: documents come unencrypted
    list_pvs: bool = False
    simulate: bool = False
    scan_file: Path | None = None
    sim_arguments: tuple[str, ...] = ()
    start: bool = False
    seconds: float = math.inf
    png: Path | None = None
    timeout_s: float = 10.0
    lens_timeout_s: float = 120.0
    log_level: str = "INFO"
    log_format: str = "text"

    @property
    def prefix(self) -> str:
        """P + R, in front of every record's name."""
        return self.prefix_p + self.prefix_r


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m tomostream_ioc",
        description="EPICS IOC: live orthogonal slices from a stream of tomography projections.",
        epilog="Try it without a beamline: python -m tomostream_ioc --simulate",
        allow_abbrev=False,
    )
    names = parser.add_argument_group("PV names (macros of db/tomoStream.template)")
    names.add_argument("--P", metavar="P", help="first part of every PV name (default 2bmb:)")
    names.add_argument("--R", metavar="R", help="second part (default TomoStream:)")
    for macro, (default, meaning) in MACROS.items():
        shown = f" (default {default})" if default else ""
        names.add_argument(f"--{macro}", metavar="NAME", help=f"{meaning}{shown}")
    names.add_argument(
        "--substitutions",
        metavar="FILE",
        type=path,
        help="read the macros from an EPICS substitutions file; the options above win over it",
    )
    run = parser.add_argument_group("running")
    run.add_argument(
        "--autosave-dir",
        metavar="DIR",
        type=path,
        help="where settings are kept (default autosave; with --simulate nowhere)",
    )
    run.add_argument(
        "--autosave-period",
        metavar="S",
        type=seconds,
        default=30.0,
        help="write changed settings at most that often (default 30 s)",
    )
    run.add_argument(
        "--autosave-sequence-period",
        metavar="S",
        type=seconds,
        default=60.0,
        help="copy saved settings to .sav0, .sav1, .sav2 in turn, at most that often "
        "(default 60 s)",
    )
    run.add_argument(
        "--device", default="auto", help="auto, cpu, cuda or cuda:k (default auto: CUDA if there)"
    )
    run.add_argument(
        "--memory-limit",
        metavar="SIZE",
        help="memory that the reconstruction may take, GPU memory on CUDA, e.g. 8G, 500M, 2GiB or "
        "a number of bytes (default 90 %% of what is free); not in it: the queue of frames that "
        "wait (512 MiB) and Python itself with its libraries",
    )
    run.add_argument(
        "--interfaces",
        metavar="IP",
        type=ipv4,
        nargs="+",
        default=(),
        help="serve CA and PVA on these addresses only (default: all)",
    )
    run.add_argument(
        "--access-security",
        metavar="FILE",
        type=path,
        help="EPICS access security file: who may read and write (default: everybody who reaches "
        "the interfaces)",
    )
    run.add_argument(
        "--read-from",
        metavar="DIR",
        type=folder,
        nargs="+",
        default=(),
        help="folders in which bluesky documents may name image files (Crystal:Source Documents); "
        "default none: images inside the documents only",
    )
    run.add_argument(
        "--curve-keys",
        metavar="DIR",
        type=path,
        help="CURVE keys for bluesky documents (Crystal:Source Documents): encrypted, from a proxy "
        "that knows this client; `python -m tomostream_ioc.documents keys DIR` makes them",
    )
    run.add_argument(
        "--timeout",
        metavar="S",
        type=seconds,
        default=10.0,
        help="how long to wait for each channel when a run starts (default 10 s)",
    )
    run.add_argument(
        "--lens-timeout",
        metavar="S",
        type=seconds,
        default=120.0,
        help="how long a motor of the lens or the sample may take when the lens changes "
        "(default 120 s)",
    )
    run.add_argument("--log-level", default="INFO", choices=["DEBUG", "INFO", "WARNING", "ERROR"])
    run.add_argument(
        "--log-format",
        default="text",
        choices=["text", "json"],
        help="lines of the log: text, or one object of JSON each (default text)",
    )
    run.add_argument("--list-pvs", action="store_true", help="print every PV and end")
    run.add_argument("--version", action="version", version=f"tomostream_ioc {__version__}")
    demo = parser.add_argument_group("demonstration")
    demo.add_argument(
        "--simulate",
        metavar="SCAN.h5",
        nargs="?",
        const="",
        help="also start a simulated tomoScan stream (a phantom, or a DXfile) and run",
    )
    demo.add_argument(
        "--sim-arguments",
        metavar="ARGS",
        default="",
        help='options for tomostream_ioc.sim, after an equals sign: --sim-arguments="--idle"',
    )
    demo.add_argument("--start", action="store_true", help="start the reconstruction at once")
    demo.add_argument("--seconds", metavar="S", type=seconds, help="end after that time")
    demo.add_argument(
        "--png", metavar="FILE", type=path, help="at the end, draw the last slices (.png)"
    )
    return parser


def parse(argv: Sequence[str], read_substitutions: SubstitutionsReader | None = None) -> Config:
    """Settings from command line arguments.

    ``read_substitutions`` gives the macros of a substitutions file.

    Raises ConfigError; its text is one line.
    """
    args = build_parser().parse_args(list(argv))
    from_file: dict[str, str] = {}
    if args.substitutions is not None:
        if read_substitutions is None:
            raise ConfigError("--substitutions is not available here")
        from_file = read_substitutions(args.substitutions)
    given = {
        name: value for name in ("P", "R", *MACROS) if (value := getattr(args, name)) is not None
    }
    macros = resolve_macros({**from_file, **given})
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", args.device):
        raise ConfigError(f"--device {args.device!r}: use auto, cpu, cuda or cuda:k")
    scan_file = Path(args.simulate) if args.simulate else None
    if scan_file is not None and not scan_file.is_file():
        reason = "this is no file" if scan_file.exists() else "there is no such file"
        raise ConfigError(f"--simulate {scan_file}: {reason}")
    if args.simulate is not None:
        _check_simulated(macros)
    if args.sim_arguments and args.simulate is None:
        raise ConfigError("--sim-arguments are for --simulate, which is not given")
    if args.autosave_dir is not None and not _may_be_folder(args.autosave_dir):
        raise ConfigError(f"--autosave-dir {args.autosave_dir}: this is no folder")
    if args.png is not None and args.png.suffix.lower() != ".png":
        raise ConfigError(f"--png {args.png}: give a name that ends in .png")
    if args.png is not None and not args.png.absolute().parent.is_dir():
        raise ConfigError(f"--png {args.png}: there is no folder {args.png.absolute().parent}")
    return Config(
        prefix_p=macros.pop("P"),
        prefix_r=macros.pop("R"),
        given=frozenset(given) - {"P", "R"},
        macros=macros,
        # what suits a phantom must not become the settings of the beamline
        autosave_dir=args.autosave_dir or (Path("autosave") if args.simulate is None else None),
        autosave_period_s=args.autosave_period,
        autosave_sequence_period_s=args.autosave_sequence_period,
        device=args.device,
        memory_limit=size_bytes("--memory-limit", args.memory_limit),
        interfaces=tuple(args.interfaces),
        access_security=args.access_security,
        read_from=tuple(args.read_from),
        curve_keys=args.curve_keys,
        list_pvs=args.list_pvs,
        simulate=args.simulate is not None,
        scan_file=scan_file,
        sim_arguments=_split(args.sim_arguments),
        start=args.start or args.simulate is not None,
        seconds=math.inf if args.seconds is None else args.seconds,
        png=args.png,
        timeout_s=args.timeout,
        lens_timeout_s=args.lens_timeout,
        log_level=args.log_level,
        log_format=args.log_format,
    )


def resolve_macros(given: Mapping[str, str]) -> dict[str, str]:
    """Fill in defaults and references of one macro to another.

    Raises ConfigError: a value too long for its record, or a PV name too long for Channel Access.
    """
    macros = {"P": "2bmb:", "R": "TomoStream:"}
    macros |= {name: default for name, (default, _) in MACROS.items()}
    macros |= given
    known = {name: macros[name] for name in ("P", "R", *MACROS)}

    def expand(name: str, seen: tuple[str, ...]) -> str:
        if name in seen:
            raise ConfigError(f"macro {name} refers to itself: {' -> '.join((*seen, name))}")

        def value_of(match: re.Match[str]) -> str:
            if match[1] not in macros:
                raise ConfigError(f"macro {name} refers to {match[1]}, which is not defined")
            return expand(match[1], (*seen, name))

        return _MACRO.sub(value_of, macros[name])

    resolved = {name: expand(name, ()) for name in known}
    longest = len(resolved["P"] + resolved["R"]) + _LONGEST_RECORD
    if longest > _MAX_PV_NAME:
        raise ConfigError(f"P + R is too long: PV names would have {longest} > {_MAX_PV_NAME}")
    if not resolved["P"] + resolved["R"]:
        raise ConfigError("P and R are both empty: give the records a prefix")
    if not resolved["RECON_PVA"]:
        raise ConfigError("RECON_PVA is empty: the slices need a channel name")
    for name, value in resolved.items():
        if re.search(r"\s", value):
            raise ConfigError(f"macro {name}={value!r}: a PV name has no blanks")
        if re.search(r"\$[({]", value):
            raise ConfigError(f"macro {name}={value!r}: the bracket is not closed, use $(NAME)")
        if name not in MACROS and (found := NOT_IN_NAMES.search(value)):
            raise ConfigError(f"macro {name}={value!r}: {found[0]!r} can't be in a record's name")
        if name in MACROS and len(value) > _MAX_STRINGOUT:
            raise ConfigError(
                f"macro {name}={value!r} has {len(value)} characters: "
                f"a stringout record holds {_MAX_STRINGOUT}"
            )
    return resolved


def _check_simulated(macros: Mapping[str, str]) -> None:
    """The simulator takes the IOC's names, where they are names that it can serve."""
    tomo_scan, image_p = macros["TOMO_SCAN"], macros["IMAGE_P"]
    if not tomo_scan:
        raise ConfigError("--simulate needs a TOMO_SCAN prefix: the simulated scan has it")
    if image_p != f"{tomo_scan}PvaPluginPVPrefix" and not image_p.endswith("Image"):
        raise ConfigError(
            f"--simulate with IMAGE_P={image_p}: use {tomo_scan}PvaPluginPVPrefix, "
            f"or an image channel whose name ends in Image"
        )


def _may_be_folder(path: Path) -> bool:
    """False for a file, and below one. A folder that is not there yet is made when it is needed."""
    there = next(each for each in (path.absolute(), *path.absolute().parents) if each.exists())
    return there.is_dir()


def _split(arguments: str) -> tuple[str, ...]:
    """Words as a shell makes them."""
    try:
        return tuple(shlex.split(arguments))
    except ValueError as error:
        raise ConfigError(f"--sim-arguments {arguments}: {error}") from None


def size_bytes(option: str, text: str | None) -> int | None:
    """A size in bytes; K, M, G and T are powers of 1024, with a B alone behind powers of 1000."""
    if text is None:
        return None
    found = _SIZE.fullmatch(text.strip())
    if not found:
        raise ConfigError(f"{option} {text!r} is no size: use e.g. 8G, 500M, 2GiB or bytes")
    number, prefix, unit = float(found[1]), found[2] or "", found[3] or ""
    base = 1000 if prefix and unit.upper() == "B" else 1024
    size = int(number * base ** " KMGT".index(prefix.upper() or " "))
    if size < 1:
        raise ConfigError(f"{option} {text!r}: give at least one byte")
    return size
