"""Which memory policy an engine goes by: the first that fits, later the next one if it must."""

from __future__ import annotations

import gc
from collections.abc import Callable

import numpy as np

from tomostream_ioc.errors import ArmingError, EngineError
from tomostream_ioc.recon import memory
from tomostream_ioc.recon.backend import RawFrames
from tomostream_ioc.recon.geometry import ScanGeometry
from tomostream_ioc.recon.memory import Budget, Plan

#: (plan, raw frames by the plan before or None): take the memory
Use = Callable[[Plan, RawFrames], None]


class MemoryPolicies:
    """Which policies an engine may go by: auto, or the one of that name, for tests.

    ``limit`` in bytes, on the device that computes. ``plan`` is the one that is in force.

    Raises ValueError: no such policy on this device.
    """

    def __init__(
        self,
        geometry: ScanGeometry,
        dtype: np.dtype,
        device: str,
        ring_itemsize: int,
        limit: int | None,
        policy: str,
    ):
        self._plans = memory.plans(geometry, dtype, device, ring_itemsize)
        self._wanted = [plan.policy for plan in self._plans if policy in ("auto", plan.policy)]
        if not self._wanted:
            raise ValueError(f"memory policy {policy!r} does not exist on {device}")
        self._device = device
        self._limit = limit
        self._fell_back = False
        self.plan = self._plans[0]

    @property
    def note(self) -> str:
        """For the user; '' when everything is as it is at best."""
        if self._fell_back:
            return f"out of memory while running, now {self.plan.policy.note}"
        return self.plan.policy.note

    def first(self, use: Use) -> None:
        """Use the first plan that fits.

        Raises ArmingError: none does, with the bytes needed and free.
        """
        budget = Budget.now(self._device, self._limit)
        plans = [plan for plan in self._plans if plan.policy in self._wanted]
        fitting = [plan for plan in plans if budget.holds(plan)]
        if not fitting:
            raise budget.refusal(plans)
        reason = self._try(fitting, None, use)
        if reason:
            raise ArmingError(f"The frames do not fit into memory: {reason}")

    def next(self, raw: RawFrames, use: Use, reason: str) -> None:
        """Memory ran out (``reason``) and was given back, all but the raw frames: use a smaller
        plan with them. Once only.

        Raises EngineError: there is none, or it is not the first time.
        """
        now = self.plan
        what_to_do = "use fewer angles, binning or a region of interest"
        if self._fell_back:
            raise EngineError(
                f"out of memory again, by the memory policy {now.policy} ({reason}): {what_to_do}"
            )
        self._fell_back = True
        plans = [
            plan
            for plan in self._plans[self._plans.index(now) + 1 :]
            if plan.on_device < now.on_device and _has_host_memory(now, plan)
        ]
        if not plans:
            raise EngineError(
                f"out of memory ({reason}), and there is no smaller memory policy than "
                f"{now.policy}: {what_to_do}"
            )
        gc.collect()  # the exception that went by may hold on to arrays
        failed = self._try(plans, raw, use)
        if failed:
            raise EngineError(f"out of memory ({reason}), and then again ({failed}): {what_to_do}")

    def _try(self, plans: list[Plan], raw: RawFrames, use: Use) -> str:
        """Use the first of the plans for which memory is there; returns why there is none, or ''"""
        reason = ""
        for plan in plans:
            memory.give_back_unused(self._device)
            try:
                use(plan, raw)
            except Exception as error:
                if not memory.is_out_of_memory(error):
                    raise
                reason = str(error) or type(error).__name__
                continue
            self.plan = plan
            return ""
        return reason


def _has_host_memory(now: Plan, plan: Plan) -> bool:
    """True unless raw frames would have to move to where there is no room for them."""
    free = memory.free_host_bytes()
    return plan.raw_on == now.raw_on or free is None or plan.on_host <= free
