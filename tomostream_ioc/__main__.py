"""python -m tomostream_ioc: command line to exit code."""

from __future__ import annotations

import gc
import sys
from collections.abc import Sequence

_INTERRUPTED = 130  # what a shell shows for a program that Ctrl-C ended


def main(argv: Sequence[str] | None = None) -> int:
    try:
        # here, not above: this import takes seconds, and Ctrl-C may come meanwhile
        from tomostream_ioc import app

        return app.main(sys.argv[1:] if argv is None else argv)
    except KeyboardInterrupt:
        return _INTERRUPTED
    finally:
        # all is closed: Python would look through every object of its libraries several times,
        # which on a busy machine takes longer than everything else at the end
        gc.freeze()


if __name__ == "__main__":
    sys.exit(main())
