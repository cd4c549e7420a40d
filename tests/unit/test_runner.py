"""The run on a fake stream and a fake engine: states, refusals, losses, changes, faults."""

import threading
import time
from dataclasses import replace

import numpy as np
import pytest

from tomostream_ioc.errors import ArmingError, CenterError, FieldError, ParameterError
from tomostream_ioc.model.center import CenterEstimate
from tomostream_ioc.model.control import ChannelNames, MemoryUse, Severity
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
        self.theta = THETA
        self.next_id = 1

    def open(self, names, handler, timeout_s):
        if self.refuse:
            raise ArmingError(self.refuse)
        handler.on_frame_type("Projection")
        handler.on_first_projection_id(0)
        for what in ("dark", "flat"):
            handler.on_connection(what, what, False)
        handler.on_connection("theta", "theta", True)
        if self.theta is not None:
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

            self.runner = Runner(self.source, self.sink, make_engine, timeout_s=0.3)
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

        def run(self, params=PARAMS):
            run_id = self.runner.start(NAMES, params)
            wait_for(lambda: self.source.handler is not None)
            self.source.send()
            wait_for(lambda: self.state() is RunState.RUNNING)
            return run_id

    rig = Rig()
    yield rig
    assert rig.runner.shutdown()


def test_frames_become_slices_and_abort_ends_the_run(rig):
    run_id = rig.run()
    for _ in range(17):
        rig.source.send()
    wait_for(lambda: rig.sink.published and rig.sink.published[-1][1].n_angles == 18)
    assert rig.engine.shape == (18, 8, 16, np.dtype("uint16"))
    assert rig.engine.pushed == [(10.0 * k, k) for k in range(18)]
    meta = rig.sink.published[-1][1]
    assert (meta.newest_id, meta.oldest_id, meta.capacity) == (18, 1, 18)
    rig.runner.abort()
    wait_for(lambda: rig.listener.ended == [run_id])
    assert rig.state() is RunState.IDLE
    assert rig.engine.released
    assert rig.source.handler is None


def test_a_slice_is_there_after_the_first_frame(rig):
    rig.run()
    wait_for(lambda: len(rig.sink.published) == 1)
    assert rig.sink.published[0][1].n_angles == 1


def test_params_move_the_slices_while_no_frame_comes(rig):
    rig.run()
    wait_for(lambda: rig.sink.published)
    before = len(rig.sink.published)
    moved = ReconParams(center=7.5, ortho_x=3, ortho_y=8, ortho_z=4)
    began = time.monotonic()
    rig.runner.set_params(moved)
    wait_for(lambda: len(rig.sink.published) > before)
    assert time.monotonic() - began < 0.5
    assert rig.sink.published[-1][1].params == moved


def test_slice_index_outside_is_shown_inside_and_said(rig):
    rig.run(ReconParams(center=8.0, ortho_x=2000, ortho_y=8, ortho_z=4))
    wait_for(lambda: rig.engine.params)
    assert rig.engine.params[-1].ortho_x == 15
    wait_for(lambda: "OrthoX 2000 is outside 0..15" in rig.runner.status().message)


def test_phase_retrieval_that_lacks_a_parameter_is_off_and_said(rig):
    three = replace(PARAMS, alpha=1e-4, energy_kev=20.0, pixel_size_um=1.0)
    rig.run(three)
    said = "no phase retrieval: set Distance above 0, or Alpha to 0"
    wait_for(lambda: said in rig.runner.status().message)
    rig.runner.set_params(replace(three, distance_mm=50.0))
    wait_for(lambda: rig.engine.params[-1].distance_mm == 50.0)
    wait_for(lambda: "phase" not in rig.runner.status().message)
    assert rig.runner.status().alarms == {}


def test_parameters_never_set_start_in_the_middle(rig):
    rig.run(ReconParams(center=0.0, ortho_x=0, ortho_y=0, ortho_z=0))
    wait_for(lambda: rig.engine.params)
    expected = ReconParams(center=7.5, ortho_x=8, ortho_y=8, ortho_z=4)
    assert rig.engine.params[-1] == expected
    assert rig.listener.changed == [expected]


def test_second_start_is_the_same_run_and_abort_while_idle_does_nothing(rig):
    rig.runner.abort()
    run_id = rig.run()
    assert rig.runner.start(NAMES, PARAMS) == run_id
    rig.runner.abort()
    wait_for(lambda: rig.listener.ended == [run_id])
    rig.runner.abort()
    assert rig.run() == run_id + 1
    assert rig.source.opened == 2


def test_start_right_behind_an_abort_is_a_new_run(rig):
    first = rig.run()
    rig.runner.abort()
    second = rig.runner.start(NAMES, PARAMS)
    assert second == first + 1
    wait_for(lambda: rig.listener.ended == [first])
    wait_for(lambda: rig.source.opened == 2)
    rig.runner.abort()
    wait_for(lambda: rig.listener.ended == [first, second])


def test_abort_while_arming(rig):
    rig.source.theta = None
    run_id = rig.runner.start(NAMES, PARAMS)
    wait_for(lambda: rig.state() is RunState.ARMING)
    rig.runner.abort()
    wait_for(lambda: rig.listener.ended == [run_id])
    assert rig.state() is RunState.IDLE


@pytest.mark.parametrize(
    ("prepare", "reason"),
    [
        (lambda s: setattr(s, "refuse", "FrameType does not answer"), "FrameType does not answer"),
        (lambda s: setattr(s, "theta", None), "no angles came from sim:Theta"),
        (lambda s: setattr(s, "theta", np.zeros(5)), "constant"),
        (lambda s: setattr(s, "theta", np.array([0, np.nan, 2])), "NaN"),
        (lambda s: setattr(s, "image_there", False), "sim:Pva1:Image does not answer"),
        (lambda s: None, "no image came from sim:Pva1:Image"),
    ],
)
def test_start_is_refused_with_the_reason(rig, prepare, reason):
    prepare(rig.source)
    run_id = rig.runner.start(NAMES, PARAMS)
    wait_for(lambda: rig.listener.ended == [run_id])
    status = rig.runner.status()
    assert status.state is RunState.IDLE
    assert reason in status.message
    assert status.alarms["ReconStatus"].severity == Severity.MINOR


def test_losses_are_counted_exactly(rig):
    rig.run()
    for unique_id in (2, 3, 3, 6, 5, 9):
        rig.source.send(unique_id)
    counts = rig.counts
    assert (counts.received, counts.missed, counts.duplicate, counts.disordered) == (7, 3, 1, 1)
    wait_for(lambda: len(rig.engine.pushed) == 6)
    assert [slot for _, slot in rig.engine.pushed] == [0, 1, 2, 5, 4, 8]


def test_dark_and_flat_frames_are_skipped_and_no_gap(rig):
    rig.run()
    rig.source.handler.on_frame_type("FlatField")
    for _ in range(5):
        rig.source.send()
    rig.source.handler.on_frame_type("Projection")
    rig.source.send()
    assert (rig.counts.skipped, rig.counts.missed) == (5, 0)
    wait_for(lambda: rig.engine.pushed == [(0.0, 0), (60.0, 6)])


def test_more_frames_than_the_queue_holds_are_dropped_and_counted(rig):
    rig.run()
    blocked = threading.Event()
    rig.engine.reconstruct = lambda params: blocked.wait(5) and None
    rig.engine.push = lambda *args: blocked.wait(5)
    depth = 1024
    for _ in range(depth + 200):
        rig.source.send()
    assert rig.counts.dropped >= 100
    assert rig.counts.missed == 0
    blocked.set()
    rig.runner.abort()


def test_stray_frames_are_rejected_and_a_sustained_change_rearms_and_scales(rig):
    rig.run()
    rig.source.send(shape=(4, 8))
    rig.source.send()
    assert rig.counts.rejected == 1
    assert len(rig.engines) == 1
    for _ in range(4):
        rig.source.send(shape=(4, 8))
    wait_for(lambda: len(rig.engines) == 2 and rig.state() is RunState.RUNNING)
    assert rig.engines[0].released
    assert rig.engine.shape == (18, 4, 8, np.dtype("uint16"))
    assert rig.counts.rejected == 4
    scaled = rig.listener.changed[-1]
    assert (scaled.center, scaled.ortho_x, scaled.ortho_z) == (3.75, 4, 2)
    wait_for(lambda: rig.engine.params and rig.engine.params[-1] == scaled)


def test_change_of_type_rearms_and_never_reinterprets(rig):
    rig.run()
    for _ in range(5):
        rig.source.send(dtype="float32", value=2.5)
    wait_for(lambda: len(rig.engines) == 2 and rig.engines[1].ring)
    assert rig.engine.shape[3] == np.dtype("float32")
    assert all((frame == 2.5).all() for frame in rig.engine.ring.values())
    assert "float32" in rig.runner.status().message


def test_new_theta_rearms_and_the_same_theta_does_not(rig):
    rig.run()
    rig.source.handler.on_theta(THETA.copy())
    rig.source.send()
    wait_for(lambda: len(rig.engine.pushed) == 2)
    assert len(rig.engines) == 1
    rig.source.handler.on_theta(np.arange(0.0, 360.0, 5.0))
    rig.source.send()
    wait_for(lambda: len(rig.engines) == 2 and rig.engine.ring)
    assert rig.engine.shape[0] == 36


def test_bad_theta_in_a_run_keeps_the_last_one(rig):
    rig.run()
    rig.source.handler.on_theta(np.array([np.nan, 1.0]))
    rig.source.send()
    wait_for(lambda: len(rig.engine.pushed) == 2)
    assert rig.runner.status().alarms["ThetaPVAName"].severity == Severity.MAJOR
    rig.source.handler.on_theta(THETA.copy())
    assert "ThetaPVAName" not in rig.runner.status().alarms


def test_field_of_wrong_shape_keeps_the_last_and_alarms_its_record(rig):
    rig.run()
    rig.source.handler.on_field("flat", np.ones((8, 16), np.float32))
    wait_for(lambda: "flat" in rig.engine.fields)
    rig.source.handler.on_field("flat", np.ones((3, 3), np.float32))
    wait_for(lambda: "FlatPVAName" in rig.runner.status().alarms)
    assert rig.engine.fields["flat"].shape == (8, 16)
    rig.source.handler.on_field("flat", np.full((8, 16), 2, np.float32))
    wait_for(lambda: rig.engine.fields["flat"][0, 0] == 2)
    assert "FlatPVAName" not in rig.runner.status().alarms


def test_frames_beyond_an_uneven_theta_are_rejected(rig):
    theta = np.array([0.0, 1.0, 5.0, 30.0, 100.0])
    rig.source.theta = theta
    rig.run()
    for _ in range(7):
        rig.source.send()
    assert rig.counts.rejected == 3
    wait_for(lambda: [t for t, _ in rig.engine.pushed] == list(theta))


def test_engine_failure_is_a_fault_and_a_new_start_works(rig):
    run_id = rig.run()
    rig.engine.fail = RuntimeError("CUDA error: device lost")
    rig.source.send()
    wait_for(lambda: rig.listener.ended == [run_id])
    status = rig.runner.status()
    assert status.state is RunState.FAULT
    assert "device lost" in status.message
    assert status.alarms["ReconStatus"].severity == Severity.MAJOR
    rig.run()
    assert rig.runner.status().alarms == {}


def test_memory_policy_is_said_as_long_as_it_is_not_the_first(rig):
    rig.run()
    wait_for(lambda: rig.runner.status().memory == MemoryUse("all on device", 1 << 20))
    assert rig.runner.status().message.startswith("Running; 1 of 18 angles so far")
    fallen = MemoryUse("chunked", 1 << 19, "out of memory while running, now chunked")
    rig.engine.memory = fallen
    wait_for(lambda: rig.runner.status().memory == fallen)
    sentence = "; out of memory while running, now chunked"
    wait_for(lambda: sentence in rig.runner.status().message)
    rig.runner.abort()
    wait_for(lambda: rig.state() is RunState.IDLE)
    assert rig.runner.status().memory == MemoryUse()


def test_disconnection_is_an_invalid_alarm_until_it_is_back(rig):
    rig.run()
    rig.source.handler.on_connection("image", "sim:Image", False)
    wait_for(lambda: "FrameRate" in rig.runner.status().alarms)
    assert rig.runner.status().alarms["FrameRate"].severity == Severity.INVALID
    wait_for(lambda: rig.sink.alarm and rig.sink.alarm.severity == Severity.INVALID)
    rig.source.handler.on_connection("image", "sim:Image", True)
    rig.source.send(1, initial=True)
    rig.source.send(3)
    wait_for(lambda: rig.runner.status().alarms == {} and rig.sink.alarm is None)
    assert (rig.counts.missed, rig.counts.duplicate) == (1, 0)


def test_heartbeat_goes_on_while_idle_and_running(rig):
    before = rig.runner.status().heartbeat_s
    wait_for(lambda: rig.runner.status().heartbeat_s > before + 0.3)
    rig.run()
    before = rig.runner.status().heartbeat_s
    wait_for(lambda: rig.runner.status().heartbeat_s > before + 0.3)


def test_what_the_channel_held_before_is_no_frame_of_the_run(rig):
    rig.runner.start(NAMES, PARAMS)
    wait_for(lambda: rig.source.handler is not None)
    rig.source.send(200, shape=(4, 8), initial=True)
    rig.source.send(1)
    rig.source.send(2)
    wait_for(lambda: rig.engines and rig.engine.pushed == [(0.0, 0), (10.0, 1)])
    counts = rig.counts
    assert (counts.received, counts.missed, counts.duplicate, counts.rejected) == (2, 0, 0, 0)
    assert rig.listener.changed == []


def test_next_scan_with_dark_and_flat_first_is_waited_for(rig):
    """Longer than any time limit: the sample moves out, fields are taken, it moves back."""
    rig.run()
    rig.source.handler.on_frame_type("DarkField")
    rig.source.handler.on_theta(np.arange(0.0, 360.0, 5.0))
    wait_for(lambda: rig.state() is RunState.ARMING)
    deadline = time.monotonic() + 1.5
    wait_for(lambda: time.monotonic() > deadline)
    assert "FrameType is DarkField" in rig.runner.status().message
    assert rig.state() is RunState.ARMING
    rig.source.handler.on_frame_type("Projection")
    rig.source.send()
    wait_for(lambda: rig.state() is RunState.RUNNING)


def test_parameters_that_can_not_be_shown_are_named_as_long_as_they_last(rig):
    rig.run()

    def refuse(params):
        raise ParameterError("center -5 is outside the detector")

    reconstruct, rig.engine.reconstruct = rig.engine.reconstruct, refuse
    rig.runner.set_params(ReconParams(center=-5.0, ortho_x=8, ortho_y=8, ortho_z=4))
    wait_for(lambda: "slices stand still: center -5" in rig.runner.status().message)
    assert rig.runner.status().alarms["ReconStatus"].severity == Severity.MINOR
    rig.engine.reconstruct = reconstruct
    rig.runner.set_params(PARAMS)
    wait_for(lambda: rig.runner.status().alarms == {})
    assert "stand still" not in rig.runner.status().message


def test_tomoscan_that_does_not_answer_is_an_alarm_on_its_record(rig):
    rig.run()
    rig.source.handler.on_connection("tomoscan", "sim:", True)
    rig.source.handler.on_connection("tomoscan", "sim:", False)
    wait_for(lambda: "tomoScan does not answer" in rig.runner.status().message)
    assert rig.runner.status().alarms["TomoScanPVPrefix"].severity == Severity.INVALID
    rig.source.handler.on_connection("tomoscan", "sim:", True)
    wait_for(lambda: "tomoScan" not in rig.runner.status().message)
    assert rig.runner.status().alarms == {}


def test_newest_id_after_a_detector_restart(rig):
    rig.run()
    for _ in range(16):
        rig.source.send()
    rig.source.handler.on_connection("image", "sim:Image", True)
    rig.source.handler.on_connection("image", "sim:Image", False)
    rig.source.handler.on_connection("image", "sim:Image", True)
    for unique_id in (1, 2, 3):
        rig.source.send(unique_id)
    wait_for(lambda: rig.sink.published[-1][1].newest_id == 3)
    assert rig.counts.duplicate == 0


def test_latency_is_measured_with_new_frames_only(rig):
    rig.run()
    wait_for(lambda: rig.runner.status().latency_s > 0)
    latency = rig.runner.status().latency_s
    rig.runner.set_params(ReconParams(center=7.0, ortho_x=8, ortho_y=8, ortho_z=4))
    wait_for(lambda: len(rig.sink.published) >= 2)
    assert rig.sink.published[-1][1].newest_received_s == 0.0
    assert rig.runner.status().latency_s == latency


def test_frame_with_dimensions_that_do_not_fit_is_rejected_once_and_not_missed(rig):
    rig.run()
    rig.source.handler.on_frame_rejected("dimensions", "Frame says 4 x 4 pixels", unique_id=2)
    rig.source.send(3)
    counts = rig.counts
    assert (counts.received, counts.rejected, counts.missed) == (3, 1, 0)


def fill(rig, frames=17):
    """The rest of the ring."""
    for _ in range(frames):
        rig.source.send()
    wait_for(lambda: rig.engine.n_filled == frames + 1)


def test_a_search_shows_what_it_found_and_leaves_center_alone(rig):
    rig.run(ReconParams(center=3.0, ortho_x=8, ortho_y=8, ortho_z=99))
    fill(rig)
    search_id = rig.runner.find_center()
    wait_for(lambda: rig.listener.searches_ended == [search_id])
    status = rig.runner.status()
    assert (status.center_found, status.center_confidence) == (7.25, 0.9)
    assert "Centre found at 7.25, confidence 0.90" in status.message
    assert rig.engine.searches[0].ortho_z == 7  # as it is shown
    assert rig.listener.changed == []
    assert rig.runner.find_center() == search_id + 1
    wait_for(lambda: rig.listener.searches_ended == [search_id, search_id + 1])


def test_frames_and_slices_go_on_during_a_search_and_a_second_request_joins_it(rig):
    rig.run()
    fill(rig)
    rig.engine.search_steps = 10**6
    search_id = rig.runner.find_center()
    wait_for(lambda: "looking for the centre" in rig.runner.status().message)
    published = len(rig.sink.published)
    for _ in range(30):
        rig.source.send()
    wait_for(lambda: len(rig.engine.pushed) == 48 and len(rig.sink.published) > published)
    assert rig.counts.dropped == 0
    assert rig.runner.find_center() == search_id
    assert len(rig.engine.searches) == 1
    rig.runner.abort()
    wait_for(lambda: rig.listener.searches_ended == [search_id])
    wait_for(lambda: rig.listener.ended)
    status = rig.runner.status()
    assert "not found: the run has ended" in status.alarms["FindCenter"].message
    assert status.center_confidence == 0.0


def test_a_search_is_refused_with_the_reason(rig):
    search_id = rig.runner.find_center()
    assert rig.listener.searches_ended == [search_id]  # at once
    status = rig.runner.status()
    assert "put StartRecon" in status.message
    assert status.alarms["FindCenter"].severity == Severity.MINOR
    rig.run()
    assert "FindCenter" not in rig.runner.status().alarms
    fill(rig)
    rig.runner.find_center()
    wait_for(lambda: rig.runner.status().center_found == 7.25)
    rig.engine.refuse_search = "12 angles are too few"
    search_id = rig.runner.find_center()
    wait_for(lambda: rig.listener.searches_ended[-1] == search_id)
    status = rig.runner.status()
    assert "The centre was not found: 12 angles are too few" in status.message
    assert (status.center_found, status.center_confidence) == (7.25, 0.0)
    rig.engine.refuse_search = ""
    rig.runner.find_center()
    wait_for(lambda: rig.runner.status().center_confidence == 0.9)
    assert "FindCenter" not in rig.runner.status().alarms


def test_a_search_ends_when_the_stream_changes(rig):
    rig.run()
    fill(rig)
    rig.engine.search_steps = 10**6
    search_id = rig.runner.find_center()
    wait_for(lambda: rig.engine.searches)
    rig.source.handler.on_theta(np.arange(0.0, 360.0, 5.0))
    wait_for(lambda: rig.listener.searches_ended == [search_id])
    assert "New theta array" in rig.runner.status().alarms["FindCenter"].message


def test_the_answer_takes_the_place_of_an_older_warning(rig):
    rig.runner.find_center()
    rig.run()
    fill(rig)
    rig.engine.refuse_search = "12 angles are too few"
    search_id = rig.runner.find_center()
    wait_for(lambda: rig.listener.searches_ended[-1:] == [search_id])
    assert "12 angles are too few" in rig.runner.status().message
    rig.engine.refuse_search = ""
    seen = []

    def ended(search_id):
        seen.append(rig.runner.status().message)

    rig.listener.center_search_ended = ended
    rig.runner.find_center()
    wait_for(lambda: seen)
    assert "Centre found at 7.25" in seen[0]
    assert "not found" not in seen[0]
    assert "looking for" not in seen[0]


def test_a_search_while_the_run_is_armed_is_to_be_put_again(rig):
    rig.runner.start(NAMES, PARAMS)
    wait_for(lambda: rig.state() is RunState.ARMING)
    search_id = rig.runner.find_center()
    assert rig.listener.searches_ended == [search_id]
    assert "being armed" in rig.runner.status().message
    assert "StartRecon" not in rig.runner.status().message


def test_a_search_without_memory_leaves_the_run_alone(rig):
    rig.run()
    fill(rig)

    class Short:
        def step(self):
            raise MemoryError

    rig.engine.center_search = lambda params: Short()
    search_id = rig.runner.find_center()
    wait_for(lambda: rig.listener.searches_ended == [search_id])
    assert "not enough memory" in rig.runner.status().alarms["FindCenter"].message
    assert rig.state() is RunState.RUNNING


def test_center_follows_when_auto_is_on_and_the_ring_is_full_once_in_a_run(rig):
    rig.runner.set_center_auto(True)
    rig.run()
    rig.source.send()
    wait_for(lambda: len(rig.engine.pushed) == 2)
    assert rig.engine.searches == []
    for _ in range(16):
        rig.source.send()
    wait_for(lambda: rig.listener.changed)
    assert rig.listener.changed[-1].center == 7.25
    assert "Center was set to it" in rig.runner.status().message
    wait_for(lambda: rig.sink.published[-1][1].params.center == 7.25)
    for _ in range(36):
        rig.source.send()
    wait_for(lambda: len(rig.engine.pushed) == 54)
    assert len(rig.engine.searches) == 1
    assert rig.listener.searches_ended == []  # nobody had asked
    rig.runner.abort()
    wait_for(lambda: rig.listener.ended)
    rig.source.next_id = 1
    rig.run()
    fill(rig)
    wait_for(lambda: len(rig.engine.searches) == 1)


def test_a_search_by_itself_begins_anew_when_the_stream_changes(rig):
    rig.runner.set_center_auto(True)
    rig.run()
    rig.engine.search_steps = 10**6
    fill(rig)
    wait_for(lambda: rig.engine.searches)
    rig.source.handler.on_theta(np.arange(0.0, 360.0, 5.0))
    rig.source.send()
    wait_for(lambda: len(rig.engines) == 2)
    assert "FindCenter" not in rig.runner.status().alarms  # nobody had asked
    for _ in range(40):
        rig.source.send()
    wait_for(lambda: rig.listener.changed and rig.listener.changed[-1].center == 7.25)


def test_center_stays_when_the_confidence_is_low(rig):
    rig.runner.set_center_auto(True)
    rig.run()
    rig.engine.found = CenterEstimate(2.0, 0.49, "other places would do as well")
    fill(rig)
    wait_for(lambda: "Center was not set" in rig.runner.status().message)
    assert "confidence 0.49: other places would do as well" in rig.runner.status().message
    assert rig.listener.changed == []
    assert rig.runner.status().center_found == 2.0


def test_an_engine_that_fails_in_a_search_is_a_fault_and_the_search_ends(rig):
    rig.run()
    fill(rig)

    def fail(params):
        raise RuntimeError("CUDA error: device lost")

    rig.engine.center_search = fail
    search_id = rig.runner.find_center()
    wait_for(lambda: rig.listener.searches_ended == [search_id])
    wait_for(lambda: rig.state() is RunState.FAULT)
