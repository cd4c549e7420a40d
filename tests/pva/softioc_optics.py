"""MCTOptics and a ROI plugin as real C records (softioc); MCTOptics' server is played beside them.

    python tests/pva/softioc_optics.py [--prefix M:MCT:] [--roi M:ROI1:] [--lens-motor M:m1]
                                       [--sample-y M:m3] [--sample-offset MM] [--no-status]

LensSelect sends the sample's vertical motor by the offset, then the lens motor to 10 x its index,
and when that has arrived tells the objective, as MCTOptics does. Lines: `set <record> <value>`,
`stop`; each is answered by `ok <line>`.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from typing import Any

OBJECTIVES = ("10", "5X", "1.1")
LENS_STEP = 10.0


def main() -> None:
    from caproto.asyncio.client import Context
    from softioc import asyncio_dispatcher, builder, softioc

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--prefix", default="M:MCT:")
    parser.add_argument("--roi", default="M:ROI1:")
    parser.add_argument("--lens-motor", default="M:m1")
    parser.add_argument("--sample-y", default="M:m3")
    parser.add_argument("--sample-offset", type=float, default=0.0)
    parser.add_argument("--no-status", action="store_true")
    arguments = parser.parse_args()

    dispatcher = asyncio_dispatcher.AsyncioDispatcher()
    loop = dispatcher.loop
    records: dict[str, Any] = {}
    clients: dict[str, Any] = {}
    current = [0]

    def show(record: str, value: Any) -> None:
        if record in records:
            records[record].set(value)

    async def client(name: str) -> Any:
        if "context" not in clients:
            clients["context"] = Context()
        if name not in clients:
            (clients[name],) = await clients["context"].get_pvs(name)
        return clients[name]

    async def select(index: int) -> None:
        if "MCTStatus" in records and records["MCTStatus"].get() != "Done":
            records["LensSelect"].set(current[0])
            return
        current[0] = index
        if arguments.sample_offset:
            sample = await client(arguments.sample_y)
            position = (await sample.read(timeout=5.0)).data[0]
            await sample.write((position + arguments.sample_offset,), wait=False, timeout=5.0)
        show("MCTStatus", f"Moving to lens: {index}")
        if arguments.lens_motor:
            motor = await client(arguments.lens_motor)
            await motor.write((LENS_STEP * index,), timeout=120.0)
        show("CameraObjective", OBJECTIVES[index])
        show("MCTStatus", "Done")

    def on_select(index: int) -> None:
        asyncio.run_coroutine_threadsafe(select(index), loop)

    builder.SetDeviceName(arguments.prefix.rstrip(":"))
    records["LensSelect"] = builder.mbbOut(
        "LensSelect", "10x", "5x", "1.1x", initial_value=0, on_update=on_select
    )
    records["LensMotorPVName"] = builder.stringOut(
        "LensMotorPVName", initial_value=arguments.lens_motor
    )
    records["CameraObjective"] = builder.stringOut("CameraObjective", initial_value=OBJECTIVES[0])
    records["DetectorPixelSize"] = builder.aOut("DetectorPixelSize", initial_value=3.45)
    records["CameraBinning"] = builder.mbbOut("CameraBinning", "1x", "2x", "4x", initial_value=0)
    if not arguments.no_status:
        records["MCTStatus"] = builder.longStringOut("MCTStatus", initial_value="Done", length=256)
    builder.SetDeviceName(arguments.roi.rstrip(":"))
    records["BinX"] = builder.longOut("BinX", initial_value=1)
    builder.LoadDatabase()
    softioc.iocInit(dispatcher)
    print("ready", flush=True)
    for line in sys.stdin:
        words = line.split()
        if words[:1] == ["stop"]:
            break
        if words[:1] == ["set"]:
            record, value = words[1], " ".join(words[2:])
            convert = {"DetectorPixelSize": float, "CameraBinning": int, "BinX": int}
            records[record].set(convert.get(record, str)(value))
            print(f"ok {line.strip()}", flush=True)
    sys.stdout.flush()
    os._exit(0)  # the C IOC has threads of its own that never end


if __name__ == "__main__":
    main()
