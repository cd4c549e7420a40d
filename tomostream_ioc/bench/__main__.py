"""python -m tomostream_ioc.bench: command line to exit code."""

import sys

from tomostream_ioc.arguments import INTERRUPTED

if __name__ == "__main__":
    try:
        # here, not above: this import takes a second, and Ctrl-C may come meanwhile
        from tomostream_ioc.bench.cli import main

        exit_code = main(sys.argv[1:])
    except KeyboardInterrupt:
        exit_code = INTERRUPTED
    sys.exit(exit_code)
