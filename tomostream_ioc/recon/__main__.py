"""python -m tomostream_ioc.recon scan.h5: slices of a file, see tomostream_ioc.offline."""

import sys

from tomostream_ioc.offline.cli import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
