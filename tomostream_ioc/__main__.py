"""python -m tomostream_ioc: command line to exit code."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from tomostream_ioc import app


def main(argv: Sequence[str] | None = None) -> int:
    return app.main(sys.argv[1:] if argv is None else argv)


if __name__ == "__main__":
    sys.exit(main())
