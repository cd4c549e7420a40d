"""tomoScan's records as real C records (softioc), led by stdin lines.

    python tests/pva/softioc_tomoscan.py [--prefix T:TS:] [--image-prefix T:] [--old] [--long]

--old leaves FirstProjid out, as older tomoScans do; --long makes PvaPluginPVPrefix a CHAR waveform.
Lines: `frame_type <index>`, `first_id <n>`, `stop`; each is answered by `ok <line>`.
"""

from __future__ import annotations

import argparse
import os
import sys

FRAME_TYPES = ("Projection", "FlatField", "DarkField")


def main() -> None:
    from softioc import asyncio_dispatcher, builder, softioc

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--prefix", default="T:TS:")
    parser.add_argument("--image-prefix", default="T:")
    parser.add_argument("--old", action="store_true")
    parser.add_argument("--long", action="store_true")
    arguments = parser.parse_args()

    dispatcher = asyncio_dispatcher.AsyncioDispatcher()
    builder.SetDeviceName(arguments.prefix.rstrip(":"))
    records = {"frame_type": builder.mbbOut("FrameType", *FRAME_TYPES, initial_value=0)}
    if not arguments.old:
        records["first_id"] = builder.longOut("FirstProjid", initial_value=0)
    text = builder.longStringOut if arguments.long else builder.stringOut
    records["image"] = text("PvaPluginPVPrefix", initial_value=arguments.image_prefix)
    builder.LoadDatabase()
    softioc.iocInit(dispatcher)
    print("ready", flush=True)
    for line in sys.stdin:
        words = line.split()
        if words[:1] == ["stop"]:
            break
        if len(words) == 2:
            records[words[0]].set(int(words[1]))
            print(f"ok {line.strip()}", flush=True)
    sys.stdout.flush()
    os._exit(0)  # the C IOC has threads of its own that never end


if __name__ == "__main__":
    main()
