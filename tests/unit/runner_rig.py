"""A Runner on a fake stream, a fake sink and a fake engine."""

import threading
import time

import numpy as np
import pytest

from tomostream_ioc.errors import ArmingError, CenterError, FieldError
from tomostream_ioc.model.center import CenterEstimate
from tomostream_ioc.model.control import ChannelNames, MemoryUse
from tomostream_ioc.model.frame import Frame
from tomostream_ioc.model.params import ReconParams
from tomostream_ioc.model.slices import Slices
from tomostream_ioc.model.state import RunState
from tomostream_ioc.runner.run import Runner

NAMES = ChannelNames("sim:", "sim:Pva", "sim:Dark", "sim:Flat", "sim:Theta")
PARAMS = ReconParams(center=8.0, ortho_x=8, ortho_y=8, ortho_z=4)
THETA = np.arange(0.0, 360.0, 10.0)


def wait_for(condition, limit_s=5.0):
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        threading.Event().wait(0.005)


class FakeSource:
    """A stream that the test feeds by hand."""

    def __init__(self):
        self.handler = None
        self.opened = 0
        self.refuse = None
        self.image_there = True
        self.theta: np.ndarray | None = THETA
        self.theta_there = True
        self.next_id = 1

    def open(self, names, handler, timeout_s):
        if self.refuse:
            raise ArmingError(self.refuse)
        handler.on_frame_type("Projection")
        handler.on_first_projection_id(0)
        for what in ("dark", "flat"):
            handler.on_connection(what, what, False)
        handler.on_connection("theta", "theta", self.theta_there)
        if self.theta is not None and self.theta_there:
            handler.on_theta(np.array(self.theta))
        handler.on_connection("image", "image", self.image_there)
        self.opened += 1
        self.handler = handler
        return "sim:Pva1:Image"

    def cancel(self):
        pass

    def close(self):
        self.handler = None

    def send(self, unique_id=None, shape=(8, 16), dtype="uint16", value=100, initial=False):
        unique_id = self.next_id if unique_id is None else unique_id
        self.next_id = unique_id + 1
        pixels = np.full(shape, value, dtype)
        now = time.monotonic()
        assert self.handler is not None
        self.handler.on_frame(Frame(unique_id, pixels, time.time(), now, initial))


class FakeSink:
    def __init__(self):
        self.idle = True
        self.published = []
        self.alarm = None
        self.posted = lambda meta, posted_s: None

    def set_posted_listener(self, listener):
        self.posted = listener

    def publish(self, slices, meta):
        self.published.append((slices, meta))
        self.posted(meta, time.monotonic())

    def set_output(self, channel):
        self.channel = channel

    def set_crosshair(self, on):
        self.crosshair = on

    def set_alarm(self, alarm):
        self.alarm = alarm

    def close(self):
        pass


class FakeEngine:
    """Remembers what it was given; slices carry the sum of what is in the ring."""

    def __init__(self, n_angles, n_rows, n_cols, dtype, heartbeat):
        self.shape = (n_angles, n_rows, n_cols, np.dtype(dtype))
        self.heartbeat = heartbeat
        self.ring = {}
        self.pushed = []
        self.params = []
        self.fields = {}
        self.fail = None
        self.released = False
        self.bad_pixels = 0
        self.memory = MemoryUse("all on device", 1 << 20)
        self.searches = []
        self.refuse_search = ""
        self.found = CenterEstimate(7.25, 0.9)
        self.search_steps = 3

    @property
    def n_filled(self):
        return len(self.ring)

    @property
    def has_flat(self):
        return "flat" in self.fields

    def set_dark(self, dark):
        self._set("dark", dark)

    def set_flat(self, flat):
        self._set("flat", flat)

    def _set(self, kind, field):
        if field.shape != self.shape[1:3]:
            raise FieldError(f"{kind} field is {field.shape}, frames are {self.shape[1:3]}")
        self.fields[kind] = field

    def push(self, frames, theta_deg, slots):
        if self.fail:
            raise self.fail
        for frame, theta, slot in zip(frames, theta_deg, slots, strict=True):
            self.ring[int(slot)] = frame.copy()
            self.pushed.append((float(theta), int(slot)))

    def reconstruct(self, params):
        self.heartbeat()
        self.params.append(params)
        _, n_rows, n_cols, _ = self.shape
        return Slices(
            np.zeros((n_cols, n_cols), np.float32),
            np.zeros((n_rows, n_cols), np.float32),
            np.zeros((n_rows, n_cols), np.float32),
        )

    def center_search(self, params):
        self.searches.append(params)
        if self.refuse_search:
            raise CenterError(self.refuse_search)
        return FakeSearch(self.found, self.search_steps)

    def release(self):
        self.released = True


class FakeOptics:
    """A lens that the test changes by hand."""

    def __init__(self):
        self.names = None
        self.handler = None
        self.crossings = []

    def open(self, names, handler):
        self.names, self.handler = names, handler

    def follow(self, crossing):
        self.crossings.append(crossing)

    def close(self):
        self.handler = None


class FakeSearch:
    def __init__(self, found, steps):
        self.found, self.steps = found, steps

    def step(self):
        threading.Event().wait(0.005)
        self.steps -= 1
        return self.found if self.steps <= 0 else None


class Listener:
    def __init__(self):
        self.ended = []
        self.changed = []
        self.searches_ended = []

    def run_ended(self, run_id):
        self.ended.append(run_id)

    def params_changed(self, params):
        self.changed.append(params)

    def center_search_ended(self, search_id):
        self.searches_ended.append(search_id)


@pytest.fixture
def rig():
    class Rig:
        def __init__(self):
            self.source, self.sink, self.listener = FakeSource(), FakeSink(), Listener()
            self.engines = []

            def make_engine(*args):
                self.engines.append(FakeEngine(*args))
                return self.engines[-1]

            self.optics = FakeOptics()
            self.runner = Runner(
                self.source, self.sink, make_engine, timeout_s=0.3, optics=self.optics
            )
            self.runner.set_listener(self.listener)
            self.runner.start_thread()

        @property
        def engine(self):
            return self.engines[-1]

        @property
        def counts(self):
            return self.runner.status().counts

        def state(self):
            return self.runner.status().state

        def run(self, params=PARAMS, names=NAMES):
            run_id = self.runner.start(names, params)
            wait_for(lambda: self.source.handler is not None)
            self.source.send()
            wait_for(lambda: self.state() is RunState.RUNNING)
            return run_id

    rig = Rig()
    yield rig
    assert rig.runner.shutdown()
