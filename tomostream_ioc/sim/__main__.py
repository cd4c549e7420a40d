"""python -m tomostream_ioc.sim: argv -> exit code; nothing else."""

import sys

from tomostream_ioc.arguments import end_quickly
from tomostream_ioc.sim.process import main

if __name__ == "__main__":
    exit_code = main()
    end_quickly()
    sys.exit(exit_code)
