"""`simulate`: a bluesky run engine scans a synthetic crystal rod and publishes its documents."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any, cast

import bluesky.plan_stubs as bps
import numpy as np
from bluesky import RunEngine
from bluesky.plans import grid_scan
from tqdm import tqdm

from tomostream_ioc.arguments import count, folder, named, path, whole
from tomostream_ioc.console import say
from tomostream_ioc.documents.commands.ending import Ended, Ending
from tomostream_ioc.documents.commands.options import (
    FORMAT_HELP,
    add_command,
    add_publishing,
    publisher_of,
    said_unheard,
    sizes,
)
from tomostream_ioc.documents.soft_devices import RodDetector, RodFileDetector, SoftMotor
from tomostream_ioc.errors import ConfigError, TrackingError
from tomostream_ioc.tracking.rod import CrystalRod


def add_to(commands: Any) -> None:
    parser = add_command(
        commands,
        "simulate",
        "A snaked grid scan over grains with known Bragg peaks; the lower part of the rod is"
        f" powder, its sides are empty. {FORMAT_HELP}",
    )
    add_publishing(parser, rate_hz=5.0)
    scan = parser.add_argument_group("scan")
    scan.add_argument(
        "--shape", type=_pair, default=(12, 15), metavar="ROWSxCOLS", help="points (12x15)"
    )
    scan.add_argument(
        "--snaking", action=argparse.BooleanOptionalAction, default=True, help="(default: yes)"
    )
    scan.add_argument("--runs", type=count, default=1, metavar="N", help="scans (default 1)")
    scan.add_argument(
        "--images", type=_pair, default=(256, 256), metavar="ROWSxCOLS", help="pixels (256x256)"
    )
    scan.add_argument("--frames", type=count, default=2, metavar="N", help="per point (default 2)")
    scan.add_argument("--grains", type=count, default=5, metavar="N", help="(default 5)")
    scan.add_argument(
        "--noise", choices=("poisson", "tiled", "none"), default="poisson", help="tiled is fastest"
    )
    scan.add_argument("--seed", type=whole, default=0, help="of all that is random (default 0)")
    scan.add_argument(
        "--key",
        type=named,
        default="dexela_image",
        help="data key of the images (default %(default)s)",
    )
    scan.add_argument(
        "--pixels",
        choices=("inline", "hdf5"),
        default="inline",
        help="inside the documents, or in HDF5 files that documents point to (default inline)",
    )
    scan.add_argument(
        "--folder",
        type=folder,
        default=Path("frames"),
        metavar="DIR",
        help="of those files (frames)",
    )
    known = parser.add_argument_group("what is known of the rod")
    known.add_argument(
        "--background",
        type=path,
        metavar="FILE.npy",
        help="write the frames of an empty point, for `serve --background`",
    )
    known.add_argument(
        "--truth",
        type=path,
        metavar="FILE.npz",
        help="write masks of the grains, and grain, y, x and counts of each peak",
    )
    parser.set_defaults(command=run)


def _pair(text: str) -> tuple[int, ...]:
    values = sizes(text)
    if len(values) != 2:
        raise argparse.ArgumentTypeError(f"{text!r} is no size of two axes such as 12x15")
    return values


def run(args: argparse.Namespace) -> int:
    rod = _rod(args)
    _write_known(args, rod)
    if args.pixels == "hdf5":
        try:
            args.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"--folder {args.folder} can't be made: {error.strerror}") from error
    slow, fast = (SoftMotor(name) for name in rod.grid.names)
    detector = (
        RodDetector(rod, slow, fast, args.key)
        if args.pixels == "inline"
        else RodFileDetector(rod, slow, fast, args.key, args.folder.resolve())
    )
    ending = Ending()
    publisher = publisher_of(args)
    uids: list[str] = []
    # no handlers of signals of its own: `ending` has them
    engine = RunEngine({}, context_managers=[])
    engine.subscribe(publisher)
    engine.subscribe(lambda _, doc: uids.append(doc["uid"]), "start")
    try:
        for _ in range(args.runs):
            began, sent = time.monotonic(), publisher.sent
            with tqdm(total=rod.n_points, desc="Points", unit="point", disable=None) as bar:
                engine(_plan(rod, detector, slow, fast, _Pace(args.rate, ending, bar)))
            say(
                f"Sent run {uids[-1]}: {rod.n_points} points, {publisher.sent - sent} documents in"
                f" {time.monotonic() - began:.1f} s"
            )
    except Ended:
        say(f"Ended by {ending.signal_name}: run {uids[-1]} is not whole")
    finally:
        publisher.close()
    return int(said_unheard(publisher) and args.wait > 0 and not ending)


class _Pace:
    """One point of the plan after another, ``rate_hz`` of them a second at most."""

    def __init__(self, rate_hz: float, ending: Ending, bar: tqdm):
        self._period_s = 1 / rate_hz if rate_hz else 0.0
        self._ending = ending
        self._bar = bar
        self._due = time.monotonic()

    def __call__(self, detectors: Any, step: Any, pos_cache: Any) -> Any:
        if self._ending:
            raise Ended(self._ending.signal_name)
        wait_s = self._due - time.monotonic()
        if wait_s > 0:
            yield from bps.sleep(wait_s)
        self._due = max(self._due + self._period_s, time.monotonic() - self._period_s)
        yield from bps.one_nd_step(detectors, step, pos_cache)
        self._bar.update()


def _plan(rod: CrystalRod, detector: Any, slow: Any, fast: Any, pace: _Pace) -> Any:
    axes: list[Any] = []
    for motor, n, pair in zip((slow, fast), rod.grid.shape, rod.grid.extents, strict=True):
        axes += [motor, *(pair or (0.0, 0.0)), n]
    return grid_scan(
        [detector],
        *axes,
        snake_axes=rod.grid.snaking[1],
        per_step=cast(Any, pace),
        md={"sample": "rod"},
    )


def _rod(args: argparse.Namespace) -> CrystalRod:
    try:
        return CrystalRod(
            args.shape,
            args.snaking,
            args.grains,
            args.images,
            args.seed,
            n_frames=args.frames,
            noise=args.noise,
        )
    except TrackingError as error:
        raise ConfigError(f"{error} (see --shape, --grains and --images)") from error


def _write_known(args: argparse.Namespace, rod: CrystalRod) -> None:
    try:
        if args.background is not None:
            empty = rod.empty_frames()
            if not len(empty):
                raise ConfigError("--background: the scan has no empty point; give a wider --shape")
            with args.background.open("wb") as file:
                np.save(file, rod.frames(int(empty[0])))
        if args.truth is not None:
            truth = rod.truth
            with args.truth.open("wb") as file:
                np.savez_compressed(
                    file, masks=truth.masks, grain=truth.grain, y=truth.y, x=truth.x,
                    counts=truth.counts, background=truth.background, powder=truth.powder,
                )  # fmt: skip
    except OSError as error:
        raise ConfigError(f"What is known of the rod can't be written: {error}") from error
