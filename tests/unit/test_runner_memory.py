"""Memory of frames and engines: given back at once, not when Python's collector comes round."""

import gc
import logging
import threading
import weakref
from collections.abc import Iterator

import numpy as np
import pytest
from runner_rig import NAMES, PARAMS, FakeEngine, FakeSink, FakeSource, Listener, wait_for

from tomostream_ioc.model.state import RunState
from tomostream_ioc.runner.run import Runner


class SourceInCycles(FakeSource):
    """Its parts refer to the handler after the end, as those of p4p's and caproto's clients do."""

    def __init__(self) -> None:
        super().__init__()
        self.handlers: list = []

    def close(self) -> None:
        if self.handler is not None:
            self.handlers.append(self.handler)
        super().close()


class BreakableEngine(FakeEngine):
    def __init__(self, broken: threading.Event, *scan):
        super().__init__(*scan)
        self._broken = broken

    def push(self, frames, theta_deg, slots):
        if self._broken.is_set():
            raise RuntimeError("the card is gone")
        super().push(frames, theta_deg, slots)


class MemoryRig:
    """A runner whose engines and frames nobody else holds."""

    def __init__(self) -> None:
        self.source, self.listener = SourceInCycles(), Listener()
        self.broken = threading.Event()
        self.frames: list[weakref.ref] = []
        self.engines: list[weakref.ref] = []
        #: of each engine, how many engines and queues of frames were there before it was made
        self.there_before: list[tuple[int, int]] = []
        self.runner = Runner(
            self.source, FakeSink(), self._make_engine, timeout_s=0.3, allocate=self._allocate
        )
        self.runner.set_listener(self.listener)
        self.runner.start_thread()

    def _allocate(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        frames = np.empty(shape, dtype)
        self.frames.append(weakref.ref(frames))
        return frames

    def _make_engine(self, *scan) -> FakeEngine:
        self.there_before.append(self.held())
        engine = BreakableEngine(self.broken, *scan)
        self.engines.append(weakref.ref(engine))
        return engine

    def held(self) -> tuple[int, int]:
        """Engines and queues of frames that are in memory."""
        return (
            sum(engine() is not None for engine in self.engines),
            sum(frames() is not None for frames in self.frames),
        )

    def run(self) -> int:
        run_id = self.runner.start(NAMES, PARAMS)
        wait_for(lambda: self.source.handler is not None)
        assert self.source.handler is not None
        self.source.handler.on_field("dark", np.zeros((8, 16), np.float32))
        self.source.send()
        wait_for(lambda: self.runner.status().state is RunState.RUNNING)
        return run_id


@pytest.fixture
def rig() -> Iterator[MemoryRig]:
    gc.collect()
    gc.disable()
    try:
        rig = MemoryRig()
        yield rig
        assert rig.runner.shutdown()
    finally:
        gc.enable()


def test_a_run_that_has_ended_keeps_no_frames_no_fields_and_no_engine(rig: MemoryRig):
    for n_runs in (1, 2, 3):
        run_id = rig.run()
        assert rig.held() == (1, 1)
        rig.runner.abort()
        wait_for(lambda run_id=run_id: run_id in rig.listener.ended)
        assert len(rig.source.handlers) == n_runs
        wait_for(lambda: rig.held() == (0, 0))
        assert all(handler.field("dark") is None for handler in rig.source.handlers)


def test_a_fault_keeps_no_frames_and_no_engine(rig: MemoryRig, monkeypatch: pytest.MonkeyPatch):
    # pytest keeps what is logged, with the frames of its traceback
    monkeypatch.setattr(logging.getLogger("tomostream_ioc.runner.run"), "disabled", True)
    run_id = rig.run()
    rig.broken.set()
    rig.source.send()
    wait_for(lambda: run_id in rig.listener.ended)
    assert rig.runner.status().state is RunState.FAULT
    wait_for(lambda: rig.held() == (0, 0))


def test_what_was_before_is_gone_when_the_next_engine_is_made(rig: MemoryRig):
    rig.run()
    for n_engines, n_rows in ((2, 12), (3, 10)):
        for _ in range(6):
            rig.source.send(shape=(n_rows, 16))
        wait_for(lambda n=n_engines: len(rig.engines) == n)
        wait_for(lambda: rig.runner.status().state is RunState.RUNNING)
    # but the queue that its own frames have come into
    assert rig.there_before == [(0, 1), (0, 1), (0, 1)]
    assert rig.held() == (1, 1)
