"""Command line of the simulated stream -> SimConfig."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tomostream_ioc.arguments import (
    Parser,
    count,
    integer,
    ipv4,
    not_negative,
    path,
    port,
    positive,
    probability,
    real,
    whole,
)
from tomostream_ioc.config import NOT_IN_NAMES
from tomostream_ioc.errors import ConfigError
from tomostream_ioc.sim.detector import DetectorSettings
from tomostream_ioc.sim.faults import FaultRates
from tomostream_ioc.sim.phantom import Dynamic
from tomostream_ioc.sim.records import RecordNames
from tomostream_ioc.sim.schedule import ScanType
from tomostream_ioc.sim.stream import StreamSettings

_EPILOG = """\
On start one line 'ready key=value ...' goes to standard output when every record and channel
answers, at the end one line of JSON with the totals (sent, lost, duplicated, swapped, lost_ids).

Without --interfaces, --ca-port and --pva-port the standard EPICS variables hold:
EPICS_CAS_SERVER_PORT or EPICS_CA_SERVER_PORT, EPICS_CAS_INTF_ADDR_LIST, EPICS_PVAS_SERVER_PORT,
EPICS_PVAS_BROADCAST_PORT, EPICS_PVAS_INTF_ADDR_LIST. Another IOC on the same host needs another
CA port wherever clients search by unicast.

With --commands, lines on standard input are commands: start, abort, retake dark|flat,
binning 1|2|4, rate FPS, loss P, duplicates P, disorder P, report, quit. The same can be put over
CA: StartScan, AbortScan, StreamRetakeDark, StreamRetakeFlat, StreamBinning, StreamScanType,
SimRate, SimLossRate, SimDuplicateRate, SimDisorderRate.
"""

#: a name of Channel Access has 60 characters at most, the longest record here 26
_LONGEST_PREFIX = 34
#: of half a turn, times the turns; the array has twice as many, 160 MB of float64
_MOST_ANGLES = 10_000_000


@dataclass(frozen=True, slots=True)
class SimConfig:
    names: RecordNames
    scan: Path | None
    n_rows: int
    n_cols: int
    n_angles: int
    start_deg: float
    center: float
    dynamic: Dynamic
    period_turns: float
    scan_type: ScanType
    detector: DetectorSettings
    stream: StreamSettings
    first_projid: int
    faults: FaultRates
    seed: int
    memory_bytes: int
    idle: bool
    commands: bool
    exit_with_parent: bool
    interfaces: tuple[str, ...]
    ca_port: int | None
    pva_port: int | None


def parse(argv: Sequence[str]) -> SimConfig:
    """Raises ConfigError for an option that can't be used; --help and --version leave at once."""
    given = _parser().parse_args(argv)
    _check_counts(given)
    n_rows, n_cols = given.rows or given.size, given.cols or given.size
    center = n_cols / 2 if given.center is None else given.center
    if not 0 <= center < n_cols:
        raise ConfigError(f"--center {center:g} lies outside the {n_cols} columns")
    scan_type = given.scan_type or ("backforth" if given.scan else "continuous")
    first_projid = given.id_start - 1 if given.first_projid is None else given.first_projid
    plugin = given.pva_prefix or f"{given.P.rstrip(':')}SP1:Pva1:"
    names = RecordNames(
        tomoscan=given.P + given.R,
        pva_plugin=plugin,
        dark=given.dark_channel,
        flat=given.flat_channel,
        theta=given.theta_channel,
    )
    _check_names(names)
    return SimConfig(
        names=names,
        scan=given.scan,
        n_rows=n_rows,
        n_cols=n_cols,
        n_angles=given.angles,
        start_deg=given.start_angle,
        center=center,
        dynamic=given.dynamic,
        period_turns=given.period,
        scan_type=scan_type,
        detector=DetectorSettings(
            dtype=given.dtype,
            i0=given.i0,
            noise=given.noise == "poisson",
            stripes=given.stripes,
            seed=given.seed,
        ),
        stream=StreamSettings(
            rate_fps=given.rate,
            n_frames=given.frames,
            id_start=given.id_start,
            id_bits=given.id_bits,
            n_turns=given.turns,
            n_field_frames=given.field_frames,
            settle_s=given.settle,
            wait_for_client=given.wait_for_client,
            start_delay_s=given.start_delay,
        ),
        first_projid=first_projid,
        faults=FaultRates(given.loss, given.duplicates, given.disorder),
        seed=given.seed,
        memory_bytes=given.memory_mb << 20,
        idle=given.idle,
        commands=given.commands,
        exit_with_parent=given.exit_with_parent,
        interfaces=tuple(given.interfaces),
        ca_port=given.ca_port,
        pva_port=given.pva_port,
    )


def _check_counts(given: argparse.Namespace) -> None:
    """Raises ConfigError: more angles than fit into memory, or an id that has too many bits."""
    if given.angles > _MOST_ANGLES:
        raise ConfigError(f"--angles {given.angles} are too many: give at most {_MOST_ANGLES}")
    if given.turns * given.angles > _MOST_ANGLES:
        raise ConfigError(
            f"--turns {given.turns} of 2 x {given.angles} angles are too long an array: give at "
            f"most {_MOST_ANGLES // given.angles}"
        )
    if not 0 <= given.id_start < 1 << given.id_bits:
        raise ConfigError(
            f"--id-start {given.id_start} is no id of {given.id_bits} bits: give 0 to "
            f"{(1 << given.id_bits) - 1}"
        )


def _check_names(names: RecordNames) -> None:
    """Raises ConfigError: names that no client could find."""
    prefix, channels = names.tomoscan, names.channels
    if not prefix:
        raise ConfigError("--P and --R are both empty: give the records a prefix")
    if len(prefix) > _LONGEST_PREFIX:
        raise ConfigError(
            f"--P and --R have {len(prefix)} characters: give at most {_LONGEST_PREFIX}"
        )
    if found := NOT_IN_NAMES.search(prefix):
        raise ConfigError(f"--P and --R {prefix!r}: {found[0]!r} can't be in a record's name")
    for name in channels.values():
        if re.search(r"\s", name):
            raise ConfigError(f"{name!r}: a channel's name has no blanks")
    if len(set(channels.values())) < len(channels):
        raise ConfigError(f"channels have the same name: {', '.join(channels.values())}")


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m tomostream_ioc.sim",
        description="A simulated tomoScan stream: a phantom or a recorded scan, sent for ever with "
        "the records and PVA channels of the real one.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument_group("names").add_argument
    add("--P", default="2bmb:", help="first part of the record names (%(default)s)")
    add("--R", default="TomoScanStream:", help="second part of the record names (%(default)s)")
    add("--pva-prefix", help="PVA plugin: image channel is this + 'Image' (default: PSP1:Pva1:)")
    add("--dark-channel", default="", metavar="NAME", help="default: P + R + StreamDarkFields")
    add("--flat-channel", default="", metavar="NAME", help="default: P + R + StreamFlatFields")
    add("--theta-channel", default="", metavar="NAME", help="default: P + R + StreamTheta")

    add = parser.add_argument_group("what is seen").add_argument
    add("--scan", type=path, metavar="FILE", help="replay this DXfile instead of the phantom")
    add("--size", type=count, default=512, help="rows and columns (%(default)s)")
    add("--rows", type=count, help="detector rows, instead of --size")
    add("--cols", type=count, help="detector columns, instead of --size")
    add("--angles", type=count, default=360, help="projections per 180 degrees (%(default)s)")
    add("--start-angle", type=real, default=0.0, metavar="DEG", help="first angle (%(default)s)")
    add("--center", type=real, help="column of the rotation axis (default: the middle)")
    add("--scan-type", choices=("continuous", "backforth"), help="default: backforth for a file")
    add("--dynamic", choices=("none", "grow", "move"), default="none", help="what changes in time")
    add("--period", type=positive, default=20.0, help="of the change, in turns (%(default)s)")

    add = parser.add_argument_group("detector").add_argument
    add("--dtype", default="uint16", help="pixel type (%(default)s)")
    add("--i0", type=not_negative, default=0.0, help="open beam, counts (default: by type)")
    add("--noise", choices=("poisson", "none"), default="poisson")
    add("--stripes", type=whole, default=0, help="columns that make ring artefacts (%(default)s)")
    add("--field-frames", type=count, default=10, help="dark or flat frames averaged (%(default)s)")

    add = parser.add_argument_group("stream").add_argument
    add("--rate", type=not_negative, default=30.0, help="frames/s, 0: no limit (%(default)s)")
    add("--frames", type=whole, default=0, help="end the scan after so many, and stay up; 0: never")
    add("--turns", type=count, default=20, help="length of the angle array (%(default)s)")
    add("--id-start", type=integer, default=1, help="unique id of the first frame (%(default)s)")
    add("--id-bits", type=int, choices=(16, 31, 32), default=32, help="width of the id counter")
    add("--first-projid", type=integer, help="FirstProjid (default: id start - 1)")
    add("--settle", type=not_negative, default=0.2, help="shutter time, seconds (%(default)s)")
    add("--wait-for-client", action="store_true", help="start when the image channel has a client")
    add("--start-delay", type=not_negative, default=0.0, metavar="S", help="then wait so long")
    add("--idle", action="store_true", help="do not start by itself: StartScan does")

    add = parser.add_argument_group("faults").add_argument
    add("--loss", type=probability, default=0.0, help="probability that a frame is skipped")
    add("--duplicates", type=probability, default=0.0, help="... that it is sent twice")
    add("--disorder", type=probability, default=0.0, help="... that it swaps with the next")
    add("--seed", type=whole, default=0, help="of faults and noise (%(default)s)")

    add = parser.add_argument_group("process").add_argument
    add("--memory-mb", type=whole, default=1024, help="for frames computed ahead (%(default)s)")
    add(
        "--interfaces", type=ipv4, nargs="+", default=(), metavar="IP", help="addresses to serve on"
    )
    add("--ca-port", type=port, help="CA server port (default: EPICS environment)")
    add("--pva-port", type=port, help="PVA TCP port (default: EPICS environment)")
    add("--commands", action="store_true", help="read commands from standard input")
    add("--exit-with-parent", action="store_true", help="end when the parent process has gone")
    return parser
