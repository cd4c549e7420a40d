"""`keys`: make CURVE keys."""

from __future__ import annotations

import argparse
from typing import Any

from tomostream_ioc.arguments import path
from tomostream_ioc.console import say
from tomostream_ioc.documents.commands.options import add_command
from tomostream_ioc.documents.transport.curve import CurveKeys


def add_to(commands: Any) -> None:
    parser = add_command(
        commands,
        "keys",
        "The proxy needs server.key_secret and clients/; who connects needs server.key,"
        " client.key and client.key_secret. Copy a further client's .key into clients/.",
    )
    parser.add_argument("folder", type=path, metavar="DIR", help="made if it is not there")
    parser.set_defaults(command=run)


def run(args: argparse.Namespace) -> int:
    CurveKeys.create(args.folder)
    say(f"Keys written to {args.folder}: keep the files *.key_secret to yourself")
    return 0
