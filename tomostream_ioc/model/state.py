"""The run's state machine: Idle -> Arming -> Running <-> Paused -> Stopping -> Idle, and Fault."""

from __future__ import annotations

import enum


class RunState(enum.Enum):
    IDLE = "Idle"
    ARMING = "Arming"
    RUNNING = "Running"
    PAUSED = "Paused"
    STOPPING = "Stopping"
    FAULT = "Fault"

    @property
    def busy(self) -> bool:
        """True from the start of a run to its end: StartRecon reads Acquire."""
        return self in (RunState.ARMING, RunState.RUNNING, RunState.PAUSED, RunState.STOPPING)


_ALLOWED: dict[RunState, frozenset[RunState]] = {
    RunState.IDLE: frozenset({RunState.ARMING}),
    RunState.ARMING: frozenset({RunState.RUNNING, RunState.STOPPING, RunState.FAULT}),
    RunState.RUNNING: frozenset(
        {RunState.ARMING, RunState.PAUSED, RunState.STOPPING, RunState.FAULT}
    ),
    RunState.PAUSED: frozenset(
        {RunState.ARMING, RunState.RUNNING, RunState.STOPPING, RunState.FAULT}
    ),
    RunState.STOPPING: frozenset({RunState.IDLE, RunState.FAULT}),
    RunState.FAULT: frozenset({RunState.ARMING, RunState.IDLE}),
}


class StateMachine:
    """Holds the state and refuses a transition that makes no sense (a defect of the caller)."""

    def __init__(self) -> None:
        self._state = RunState.IDLE

    @property
    def state(self) -> RunState:
        return self._state

    def to(self, new: RunState) -> None:
        if new not in _ALLOWED[self._state]:
            raise ValueError(f"no transition from {self._state.value} to {new.value}")
        self._state = new
