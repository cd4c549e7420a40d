"""The commands of python -m tomostream_ioc.documents, a module each."""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Sequence
from importlib import import_module

from tomostream_ioc import __version__
from tomostream_ioc.arguments import INTERRUPTED, Parser, fail
from tomostream_ioc.console import set_up_logging
from tomostream_ioc.documents.commands.ending import Ended
from tomostream_ioc.documents.commands.options import SUMMARIES
from tomostream_ioc.errors import ConfigError, TomoStreamError

_PROGRAM = "tomostream_ioc.documents"
_EPILOG = """\
Try it without a beamline, in three terminals:

  python -m tomostream_ioc.documents proxy 5567 5568
  python -m tomostream_ioc.documents serve --key dexela_image --diameter 11 --percentile 80 \\
      --separation 20 --search-range 10 --db crystal
  python -m tomostream_ioc.documents simulate
"""


def build_parser(argv: Sequence[str]) -> Parser:
    """With the options of the command that ``argv`` names.

    The modules of the others are not loaded: the database alone takes seconds, also to end.
    """
    parser = Parser(
        prog="python -m tomostream_ioc.documents",
        description="Bragg peaks, tracks and crystal maps from bluesky documents over ZeroMQ.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"tomostream_ioc {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    named = next((word for word in argv if not word.startswith("-")), "")
    for name, summary in SUMMARIES.items():
        if name == named:
            import_module(f"{__name__}.{name}").add_to(commands)
        else:
            commands.add_parser(name, help=summary)
    return parser


def main(argv: Sequence[str]) -> int:
    """Exit code: 0, also when a signal ended it; 1 when it failed, 2 for a wrong option or file."""
    # a library's remark on another one, which nobody here can follow
    warnings.filterwarnings("ignore", message=".*starlette.testclient.*")
    try:
        args = build_parser(argv).parse_args(list(argv))
        set_up_logging(args.log_level, args.log_format)
        return args.command(args)
    except ConfigError as error:
        return fail(error, _PROGRAM)
    except Ended:
        return 0
    except MemoryError as error:
        return fail(MemoryError(f"not enough memory: {error}"), _PROGRAM, 1)
    except (TomoStreamError, OSError) as error:
        return fail(error, _PROGRAM, 1)
    except KeyboardInterrupt:  # before signals were caught
        return INTERRUPTED
