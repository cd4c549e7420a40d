"""`plot`: draw the crystal maps of a recorded scan."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from tomostream_ioc.arguments import named, path
from tomostream_ioc.documents.commands.options import add_command
from tomostream_ioc.documents.plot_choices import DPI, FIGURES, N_MAPS, ORIGINS


def add_to(commands: Any) -> None:
    parser = add_command(
        commands,
        "plot",
        "Total intensity, the light image with the peaks' windows, and the brightest tracks' maps.",
    )
    parser.add_argument(
        "--db",
        type=named,
        required=True,
        metavar="DIR",
        help="folder of the database, or a Tiled server's URI",
    )
    parser.add_argument(
        "--run",
        dest="uid",
        default="-1",
        metavar="UID",
        help="the scan's run, or one derived from it, by its first characters; -1 is the last run"
        " (default), -2 the one before",
    )
    parser.add_argument(
        "-o", "--output", type=path, default=Path("maps.png"), help="picture (maps.png)"
    )
    parser.add_argument(
        "-n", "--maps", type=int, default=N_MAPS, metavar="N", help=f"brightest tracks ({N_MAPS})"
    )
    parser.add_argument(
        "--figure", choices=FIGURES, default="all", help="one of the figures only (all)"
    )
    parser.add_argument(
        "--half-width",
        type=float,
        metavar="PIXELS",
        help="half width of the squares around peaks (the diameter that peaks were found with)",
    )
    parser.add_argument(
        "--origin",
        choices=ORIGINS,
        default="upper",
        help="where the scan's first row is drawn (upper, as in live maps)",
    )
    parser.add_argument("--dpi", type=int, default=DPI, help=f"{DPI} makes 1200 pixels a line")
    parser.set_defaults(command=run)


def run(args: argparse.Namespace) -> int:
    # here, not above: it takes seconds, wrong options do not
    from tomostream_ioc.documents import plot

    return plot.run(args)
