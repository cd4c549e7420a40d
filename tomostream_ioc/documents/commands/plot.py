"""`plot`: draw the crystal maps of a recorded scan."""

from __future__ import annotations

import argparse
from typing import Any

from tomostream_ioc.documents import plot
from tomostream_ioc.documents.commands.options import add_command


def add_to(commands: Any) -> None:
    parser = add_command(
        commands,
        "plot",
        "Total intensity, the light image with the peaks' windows, and the brightest tracks' maps.",
    )
    plot.add_arguments(parser)
    parser.set_defaults(command=run)


def run(args: argparse.Namespace) -> int:
    return plot.run(args)
