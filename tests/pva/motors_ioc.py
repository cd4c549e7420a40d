"""Motor records that move: VAL, RBV, DMOV, soft limits, and puts that end with the motion.

    python tests/pva/motors_ioc.py [--prefix M:] [--speed MM_PER_S]

Serves m1 (lens), m17, m18 and m3. Lines: `speed <motor> <mm/s>` (0: it never arrives),
`limits <motor> <low> <high>`; each is answered by `ok <line>`.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import sys
from typing import Any

from caproto.asyncio.server import Context
from caproto.server import PVGroup, SubGroup, pvproperty

_TICK_S = 0.02


async def _start(self: Any, instance: Any, async_lib: Any) -> None:
    await self.fields.done_moving_to_value.write(1)


async def _put(self: Any, instance: Any, value: Any) -> float:
    """As a motor record: beyond soft limits VAL stays; else the put ends with the motion."""
    return await self.go(instance, float(value))


class Motor(PVGroup):
    value = pvproperty(value=0.0, name="", record="motor", precision=4, startup=_start, put=_put)

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.speed = 20.0
        self.limits = (0.0, 0.0)
        self.target = 0.0
        self.refused = False
        self._moving: asyncio.Task[None] | None = None

    @property
    def fields(self) -> Any:
        return self.attr_pvdb["value"].field_inst

    async def go(self, instance: Any, value: float) -> float:
        low, high = self.limits
        if low < high and not low <= value <= high:
            return self.target
        self.target = value
        await self.fields.done_moving_to_value.write(0)
        if self._moving is None or self._moving.done():
            self._moving = asyncio.create_task(self._move())
        # VAL is where it was told to go, at once
        await instance.write(value, verify_value=False)
        await asyncio.shield(self._moving)
        return value

    async def _move(self) -> None:
        readback = self.fields.user_readback_value
        while readback.value != self.target:
            await asyncio.sleep(_TICK_S)
            step, at = self.speed * _TICK_S, float(readback.value)
            way = self.target - at
            await readback.write(at + math.copysign(step, way) if abs(way) > step else self.target)
        await self.fields.done_moving_to_value.write(1)

    async def set_limits(self, low: float, high: float) -> None:
        self.limits = (low, high)
        await self.fields.user_low_limit.write(low)
        await self.fields.user_high_limit.write(high)


class Motors(PVGroup):
    m1 = SubGroup(Motor, prefix="m1")
    m3 = SubGroup(Motor, prefix="m3")
    m17 = SubGroup(Motor, prefix="m17")
    m18 = SubGroup(Motor, prefix="m18")


async def serve() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--prefix", default="M:")
    parser.add_argument("--speed", type=float, default=20.0)
    arguments = parser.parse_args()
    motors = Motors(prefix=arguments.prefix)
    for name in ("m1", "m3", "m17", "m18"):
        getattr(motors, name).speed = arguments.speed
    loop = asyncio.get_running_loop()

    async def ready(_: object) -> None:
        print("ready", flush=True)

    serving = asyncio.create_task(Context(motors.pvdb, ["127.0.0.1"]).run(startup_hook=ready))
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        words = line.split()
        motor = getattr(motors, words[1])
        if words[0] == "speed":
            motor.speed = float(words[2])
        elif words[0] == "limits":
            await motor.set_limits(float(words[2]), float(words[3]))
        print(f"ok {line.strip()}", flush=True)
    serving.cancel()


if __name__ == "__main__":
    asyncio.run(serve())
