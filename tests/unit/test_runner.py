"""The run on a fake stream and a fake engine: states, refusals, losses, changes, faults."""

import threading
import time
from dataclasses import replace

import numpy as np
import runner_rig
from runner_rig import (
    NAMES,
    PARAMS,
    THETA,
    wait_for,
)

from tomostream_ioc.errors import ParameterError
from tomostream_ioc.model.control import MemoryUse, Severity
from tomostream_ioc.model.params import ReconParams
from tomostream_ioc.model.state import RunState

rig = runner_rig.rig


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


def test_the_last_of_many_changes_is_shown_and_not_each_of_them(rig):
    rig.run()
    wait_for(lambda: rig.sink.published)
    before, began = len(rig.engine.params), time.monotonic()
    for k in range(300):
        rig.runner.set_params(replace(PARAMS, center=8.0 + k / 100))
        time.sleep(0.001)
    wait_for(lambda: rig.engine.params[-1].center == 10.99)
    took_s = time.monotonic() - began
    assert 2 <= len(rig.engine.params) - before <= took_s / 0.03 + 2


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
    assert rig.runner.status().frame_shape is None
    rig.run()
    assert rig.runner.status().frame_shape == (8, 16)
    rig.source.send(shape=(4, 8))
    rig.source.send()
    assert rig.counts.rejected == 1
    assert len(rig.engines) == 1
    for _ in range(4):
        rig.source.send(shape=(4, 8))
    wait_for(lambda: len(rig.engines) == 2 and rig.state() is RunState.RUNNING)
    assert rig.engines[0].released
    assert rig.engine.shape == (18, 4, 8, np.dtype("uint16"))
    assert rig.runner.status().frame_shape == (4, 8)
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
