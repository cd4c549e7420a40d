"""python -m tomostream_ioc.recon scan.h5: slices of a file, see tomostream_ioc.offline."""

import sys

from tomostream_ioc.arguments import end_quickly
from tomostream_ioc.offline.cli import main

if __name__ == "__main__":
    exit_code = main(sys.argv[1:])
    end_quickly()
    sys.exit(exit_code)
