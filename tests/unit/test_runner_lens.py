"""A change of lens in a run on a fake engine, with optics that the test leads by hand."""

from dataclasses import replace

import numpy as np
import runner_rig
from runner_rig import NAMES, PARAMS, wait_for

from tomostream_ioc.model.control import LensNames, Severity
from tomostream_ioc.model.lens import Crossing, LensFault, LensOutcome
from tomostream_ioc.model.params import ReconParams
from tomostream_ioc.model.state import RunState

rig = runner_rig.rig

WITH_OPTICS = replace(NAMES, lens=LensNames("mct:", "m17", "m18", "m3", "roi:"))
OFF_MIDDLE = ReconParams(center=8.0, ortho_x=11, ortho_y=6, ortho_z=1)
MOVED = {"x": 0.1, "y": -0.2, "z": 0.3}


def message(rig):
    return rig.runner.status().message


def alarms(rig):
    return rig.runner.status().alarms


def select(rig, sync, follow=True):
    """A lens is selected in a run; the run is paused."""
    rig.runner.set_lens_sync(sync)
    rig.run(OFF_MIDDLE, WITH_OPTICS)
    wait_for(lambda: rig.engine.pushed)
    rig.optics.handler.on_lens_change("lens 5x")
    if follow:
        wait_for(lambda: rig.optics.crossings)
        assert rig.state() is RunState.PAUSED


def done(rig, **outcome):
    rig.optics.handler.on_lens_done(LensOutcome("lens 5x", **outcome))


def resumed(rig):
    """The first frame of the new lens."""
    wait_for(lambda: "waiting for the first projection" in message(rig))
    rig.source.send(value=7)
    wait_for(lambda: rig.state() is RunState.RUNNING and rig.engine.pushed)


def test_frames_of_the_change_are_skipped_and_the_ring_begins_anew(rig):
    select(rig, sync=True)
    for _ in range(5):
        rig.source.send(value=55)
    assert rig.counts.skipped == 5
    assert len(rig.engines) == 1
    done(rig, moved_mm=MOVED, pixel_um=0.69)
    resumed(rig)
    assert len(rig.engines) == 2
    assert rig.engines[0].released
    assert not np.any([frame == 55 for frame in rig.engine.ring.values()])
    assert [frame[0, 0] for frame in rig.engine.ring.values()] == [7]
    counts = rig.counts
    assert (counts.received, counts.skipped, counts.missed, counts.dropped) == (7, 5, 0, 0)


def test_with_sync_the_crossing_goes_to_the_optics_and_the_slices_to_the_middle(rig):
    select(rig, sync=True)
    assert rig.optics.names == WITH_OPTICS.lens
    assert rig.optics.crossings == [Crossing(3, -2, -3)]
    done(rig, moved_mm=MOVED, pixel_um=0.69)
    resumed(rig)
    changed = rig.listener.changed[-1]
    assert (changed.ortho_x, changed.ortho_y, changed.ortho_z) == (8, 8, 4)
    assert (changed.center, changed.pixel_size_um) == (8.0, 0.69)
    wait_for(lambda: rig.engine.params)
    assert rig.engine.params[-1].ortho_x == 8
    assert "OrthoX, OrthoY, OrthoZ set to the middle, PixelSize set to 0.69 um" in message(rig)
    assert alarms(rig) == {}


def test_without_sync_nothing_is_moved_or_set(rig):
    select(rig, sync=False)
    assert rig.optics.crossings == [None]
    done(rig, pixel_um=0.69)
    resumed(rig)
    assert rig.listener.changed == []
    assert alarms(rig) == {}


def test_only_axes_that_have_arrived_go_to_the_middle(rig):
    select(rig, sync=True)
    fault = LensFault("SampleYPVName", Severity.MAJOR, "WRITE", "m3 did not arrive")
    done(rig, moved_mm={"x": 0.1, "y": 0.2}, faults=(fault,))
    resumed(rig)
    changed = rig.listener.changed[-1]
    assert (changed.ortho_x, changed.ortho_y, changed.ortho_z) == (8, 8, 1)
    assert changed.pixel_size_um == 0.0
    assert alarms(rig)["SampleYPVName"].message == "m3 did not arrive"
    assert alarms(rig)["LensChangeSync"].severity is Severity.MINOR
    assert "m3 did not arrive" in message(rig)
    # the next change that goes well takes it back
    rig.optics.handler.on_lens_change("lens 10x")
    wait_for(lambda: len(rig.optics.crossings) == 2)
    done(rig, moved_mm=MOVED)
    resumed(rig)
    assert alarms(rig) == {}


def test_steps_are_shown_and_parameters_still_taken(rig):
    select(rig, sync=True)
    rig.optics.handler.on_lens_step("lens 5x: moving the sample")
    wait_for(lambda: message(rig).startswith("Paused: lens 5x: moving the sample"))
    rig.runner.set_params(replace(OFF_MIDDLE, filter_type="Ramp"))
    before = rig.runner.status().heartbeat_s
    wait_for(lambda: rig.runner.status().heartbeat_s > before)  # the watchdog is fed
    done(rig, moved_mm=MOVED)
    resumed(rig)
    wait_for(lambda: rig.engine.params)
    assert rig.engine.params[-1].filter_type == "Ramp"


def test_abort_ends_the_wait_at_once(rig):
    select(rig, sync=True)
    rig.runner.abort()
    wait_for(lambda: rig.listener.ended)
    assert rig.state() is RunState.IDLE
    assert message(rig) == "Stopped"
    assert rig.optics.handler is None  # closed
    rig.run()
    assert rig.engine.pushed is not None


def test_a_change_that_comes_just_after_is_followed_too(rig):
    select(rig, sync=True)
    handler = rig.optics.handler
    # the end of the first and the begin of the second, before the run has looked
    handler.on_lens_done(LensOutcome("lens 5x", MOVED))
    wait_for(lambda: "waiting for the first projection" in message(rig))
    handler.on_lens_change("lens 10x")
    wait_for(lambda: len(rig.optics.crossings) == 2)
    assert rig.optics.crossings[1] is None  # there are no slices whose crossing could be kept
    rig.source.send()
    assert rig.counts.skipped == 1
    assert message(rig).startswith("Arming: lens 10x was selected")
    handler.on_lens_done(LensOutcome("lens 10x", pixel_um=0.3))
    resumed(rig)
    assert rig.listener.changed[-1].pixel_size_um == 0.3


def test_a_change_while_the_first_image_is_waited_for(rig):
    rig.runner.set_lens_sync(True)
    rig.runner.start(WITH_OPTICS, PARAMS)
    wait_for(lambda: "waiting for the first projection" in message(rig))
    rig.optics.handler.on_lens_change("lens 5x")
    wait_for(lambda: rig.optics.crossings == [None])
    rig.source.send()
    done(rig)
    resumed(rig)
    assert rig.counts.skipped == 1


def test_fields_of_the_lens_before_are_named_until_new_ones_come(rig):
    select(rig, sync=False, follow=False)
    handler = rig.source.handler
    wait_for(lambda: rig.optics.crossings)
    assert "of the lens before" not in message(rig)
    done(rig)
    resumed(rig)
    assert "of the lens before" not in message(rig)  # there were none
    for kind in ("dark", "flat"):
        handler.on_field(kind, np.ones((8, 16), np.float32))
    wait_for(lambda: set(rig.engine.fields) == {"dark", "flat"})
    rig.optics.handler.on_lens_change("lens 10x")
    wait_for(lambda: len(rig.optics.crossings) == 2)
    handler.on_field("dark", np.full((8, 16), 2, np.float32))  # before the lens is there
    done(rig)
    resumed(rig)
    wait_for(lambda: "flat of the lens before: take new ones" in message(rig))
    assert rig.engine.fields["dark"][0, 0] == 2
    handler.on_field("flat", np.full((8, 16), 3, np.float32))
    wait_for(lambda: rig.engine.fields["flat"][0, 0] == 3)  # used at once
    wait_for(lambda: "of the lens before" not in message(rig))


def test_names_that_do_not_answer_matter_as_far_as_they_are_needed(rig):
    rig.run(OFF_MIDDLE, WITH_OPTICS)
    motor = LensFault("SampleYPVName", Severity.INVALID, "COMM", "m3 does not answer")
    optics = LensFault("MctOpticsPVPrefix", Severity.INVALID, "COMM", "mct: is away", False)
    rig.optics.handler.on_lens_faults((motor, optics))
    assert set(alarms(rig)) == {"MctOpticsPVPrefix"}
    wait_for(lambda: "mct: is away" in message(rig))
    rig.runner.set_lens_sync(True)
    assert set(alarms(rig)) == {"MctOpticsPVPrefix", "SampleYPVName", "LensChangeSync"}
    rig.optics.handler.on_lens_faults(())
    assert alarms(rig) == {}
    rig.optics.handler.on_lens_faults((motor,))
    rig.runner.abort()
    wait_for(lambda: rig.listener.ended)
    assert alarms(rig) == {}


def test_sync_without_mctoptics_is_said(rig):
    rig.run()
    assert alarms(rig) == {}
    rig.runner.set_lens_sync(True)
    assert "MctOpticsPVPrefix is empty" in alarms(rig)["LensChangeSync"].message
    rig.runner.set_lens_sync(False)
    assert alarms(rig) == {}


def test_a_search_for_the_centre_ends_with_the_lens_and_is_refused_meanwhile(rig):
    rig.runner.set_center_auto(True)
    select(rig, sync=False)
    search_id = rig.runner.find_center()
    wait_for(lambda: rig.listener.searches_ended == [search_id])
    assert "paused" in alarms(rig)["FindCenter"].message
    done(rig)
    resumed(rig)
    for _ in range(17):
        rig.source.send()
    wait_for(lambda: rig.engine.searches)  # of its own accord: the axis is elsewhere


def test_a_change_without_a_run_is_not_even_seen(rig):
    assert rig.optics.handler is None
    assert rig.state() is RunState.IDLE
