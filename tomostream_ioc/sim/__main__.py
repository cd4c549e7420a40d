"""python -m tomostream_ioc.sim: argv -> exit code; nothing else."""

import sys

from tomostream_ioc.arguments import INTERRUPTED, end_quickly

if __name__ == "__main__":
    try:
        # here, not above: this import takes a second, and Ctrl-C may come meanwhile
        from tomostream_ioc.sim.process import main

        exit_code = main()
    except KeyboardInterrupt:
        exit_code = INTERRUPTED
    end_quickly()
    sys.exit(exit_code)
