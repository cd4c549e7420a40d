"""python -m tomostream_ioc.documents: command line to exit code."""

from __future__ import annotations

import sys

from tomostream_ioc.arguments import INTERRUPTED

if __name__ == "__main__":
    try:
        # here, not above: this import takes seconds, and Ctrl-C may come meanwhile
        from tomostream_ioc.documents.commands import main
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    sys.exit(main(sys.argv[1:]))
