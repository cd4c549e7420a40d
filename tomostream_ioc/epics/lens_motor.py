"""A motor of the sample over CA: whether it may go there, the move, and whether it has arrived."""

from __future__ import annotations

import asyncio
import math
import time

from caproto import ChannelType

from tomostream_ioc.epics.lens_channels import ChannelError, Channels, FollowedChannel
from tomostream_ioc.errors import LensError

#: a read or a short put
_ANSWER_S = 2.0
#: the readback may follow the end of a motion that late
_READBACK_S = 2.0
#: fields of a motor record that other records, and simulated motors, need not have
_OPTIONAL = ("DMOV", "RBV", "RDBD", "HLM", "LLM")


class SampleMotor:
    """A motor record, or any number record that moves something."""

    def __init__(self, channels: Channels, axis: str, setpoint: FollowedChannel):
        self.axis = axis
        self.setpoint = setpoint
        self._channels = channels
        self._fields: dict[str, FollowedChannel] = {}

    @classmethod
    async def follow(cls, channels: Channels, axis: str, name: str) -> SampleMotor:
        """Raises LensError: no motor can have that name."""
        name = name.removesuffix(".VAL")
        motor = cls(channels, axis, await channels.add(name))
        for field in _OPTIONAL:
            motor._fields[field] = await channels.add(f"{name}.{field}")
        return motor

    @property
    def name(self) -> str:
        return self.setpoint.name

    async def target(self, move_mm: float) -> float:
        """Where the move ends. Raises LensError: no position, or beyond the soft limits.

        Counted from where the motor was told to go: MCTOptics may have sent it there just now.
        """
        target = await self._position() + move_mm
        low, high = self._number("LLM"), self._number("HLM")
        if low < high and not low <= target <= high:
            raise LensError(
                f"{self.name} would have to go to {target:.4f}, its limits are {low:g} to {high:g}"
            )
        return target

    async def move(self, target: float, tolerance_mm: float, limit_s: float) -> None:
        """Go there and wait for the end of the motion.

        Raises LensError: it does not arrive in time, elsewhere, or can't be reached.
        """
        deadline = time.monotonic() + limit_s
        put = asyncio.ensure_future(self.setpoint.write(target, limit_s))
        try:
            await self._channels.or_gone(self.setpoint, put)
        except ChannelError as error:
            raise LensError(f"{error}: not at {target:.4f} after {limit_s:g} s") from error
        done = self._fields["DMOV"]
        if not await self._channels.until(
            lambda: not done.connected or done.number != 0, deadline - time.monotonic()
        ):
            raise LensError(f"{self.name} still moves after {limit_s:g} s")
        told = await self._position()
        if abs(told - target) > tolerance_mm:
            raise LensError(f"{self.name} is sent to {told:.4f} instead of {target:.4f}")
        readback, deadband = self._fields["RBV"], self._number("RDBD")
        near = max(tolerance_mm, 0.0 if math.isnan(deadband) else deadband)
        if not await self._channels.until(
            lambda: not readback.connected or abs(readback.number - target) <= near, _READBACK_S
        ):
            raise LensError(f"{self.name} stopped at {readback.number:.4f}, short of {target:.4f}")

    def _number(self, field: str) -> float:
        return self._fields[field].number if self._fields[field].connected else math.nan

    async def _position(self) -> float:
        read = self.setpoint.read(ChannelType.DOUBLE, _ANSWER_S)
        try:
            response = await self._channels.or_gone(self.setpoint, asyncio.ensure_future(read))
        except ChannelError as error:
            raise LensError(str(error)) from error
        position = float(response.data[0])
        if not math.isfinite(position):
            raise LensError(f"{self.name} has no position")
        return position
