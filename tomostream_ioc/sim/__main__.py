"""python -m tomostream_ioc.sim: argv -> exit code; nothing else."""

import sys

from tomostream_ioc.sim.process import main

if __name__ == "__main__":
    sys.exit(main())
