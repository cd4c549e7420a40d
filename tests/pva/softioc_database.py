"""The database of db/ as a C IOC serves it (softioc with QSRV): busy records as bo, as it has none.

python tests/pva/softioc_database.py FOLDER 'P=ref:,R=TomoStream:,...'   ends with its stdin
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

DB = Path(__file__).parents[2] / "db"


def main() -> None:
    from softioc import asyncio_dispatcher, softioc

    folder, macros = Path(sys.argv[1]), sys.argv[2]
    for template in sorted(DB.glob("*.template")):
        copy = folder / template.name
        copy.write_text(template.read_text().replace("record(busy,", "record(bo,"))
        softioc.dbLoadDatabase(str(copy), substitutions=macros)
    softioc.iocInit(asyncio_dispatcher.AsyncioDispatcher())
    print("ready", flush=True)
    sys.stdin.read()
    os._exit(0)  # the C IOC has threads of its own that never end


if __name__ == "__main__":
    main()
