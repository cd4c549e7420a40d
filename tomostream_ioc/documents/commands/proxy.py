"""`proxy`: forward documents from those who publish to those who listen."""

from __future__ import annotations

import argparse
import logging
from typing import Any

from tomostream_ioc.arguments import count, ipv4, port
from tomostream_ioc.console import say
from tomostream_ioc.documents.commands.ending import Ended, Ending
from tomostream_ioc.documents.commands.options import add_command, add_keys, check_reach, keys_of
from tomostream_ioc.documents.transport.address import LOOPBACK, Address
from tomostream_ioc.documents.transport.proxy import HIGH_WATER, DocumentProxy
from tomostream_ioc.errors import ConfigError

log = logging.getLogger(__name__)


def add_to(commands: Any) -> None:
    parser = add_command(
        commands,
        "proxy",
        "bluesky's own publishers and dispatchers connect to it as well. Without --interfaces it"
        " is reached from this host alone.",
    )
    parser.add_argument("in_port", type=port, metavar="IN", help="for publishers, e.g. 5567")
    parser.add_argument("out_port", type=port, metavar="OUT", help="for listeners, e.g. 5568")
    group = parser.add_argument_group("network")
    group.add_argument(
        "--interfaces",
        nargs="+",
        type=ipv4,
        default=[LOOPBACK],
        metavar="IP",
        help="bind these addresses (default 127.0.0.1); use --curve-keys with it",
    )
    add_keys(group)
    group.add_argument(
        "--high-water",
        type=count,
        default=HIGH_WATER,
        metavar="N",
        help="messages held for each that is slow; more are lost to it (default %(default)s)",
    )
    parser.set_defaults(command=run)


def run(args: argparse.Namespace) -> int:
    if args.in_port == args.out_port:
        raise ConfigError(f"IN and OUT are both {args.in_port}: give two ports")
    keys = keys_of(args, binds=True)
    proxy = DocumentProxy(
        args.in_port,
        args.out_port,
        interfaces=args.interfaces,
        keys=keys,
        high_water=args.high_water,
    )
    try:
        Ending(raising=True)
        for interface in args.interfaces:
            check_reach(Address(interface, args.in_port), keys, pickles=False)
        say(
            f"Ready: {args.in_port} -> {args.out_port} on {', '.join(args.interfaces)}"
            f"{' with CURVE keys' if keys else ''}"
        )
        proxy.run()
    except Ended:
        say("Ended")
    finally:
        proxy.close()
    return 0
