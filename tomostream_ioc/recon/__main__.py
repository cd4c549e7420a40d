"""python -m tomostream_ioc.recon scan.h5: slices of a file, see tomostream_ioc.offline."""

import sys

from tomostream_ioc.arguments import INTERRUPTED, end_quickly

if __name__ == "__main__":
    try:
        # here, not above: this import takes a second, and Ctrl-C may come meanwhile
        from tomostream_ioc.offline.cli import main

        exit_code = main(sys.argv[1:])
    except KeyboardInterrupt:
        exit_code = INTERRUPTED
    end_quickly()
    sys.exit(exit_code)
