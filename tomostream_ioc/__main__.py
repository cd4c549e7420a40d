"""python -m tomostream_ioc: command line to exit code.

What is imported where it is used takes up to a second: a wrong option is refused without it, and
Ctrl-C may come meanwhile.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from tomostream_ioc.arguments import INTERRUPTED, end_quickly, fail


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code: 0 after a clean end, 1 without CA server, 2 for a wrong option, macro or file."""
    try:
        return _main(sys.argv[1:] if argv is None else argv)
    except KeyboardInterrupt:
        return INTERRUPTED


def _main(argv: Sequence[str]) -> int:
    from tomostream_ioc.config import parse
    from tomostream_ioc.epics.database import template_macros
    from tomostream_ioc.errors import ConfigError

    try:
        try:
            config = parse(argv, template_macros)
        except OSError as error:  # of a path that can't even be looked at
            return fail(error)
        from tomostream_ioc.console import say, set_up_logging

        set_up_logging(config.log_level, config.log_format)
        if config.list_pvs:
            from tomostream_ioc.epics.table import as_text, pv_rows

            say(as_text(pv_rows(config.prefix, dict(config.macros))))
            return 0
        from tomostream_ioc.app import run

        try:
            return run(config)
        finally:
            end_quickly()
    except ConfigError as error:
        return fail(error)


if __name__ == "__main__":
    sys.exit(main())
