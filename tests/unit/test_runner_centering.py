"""FindCenter and CenterAuto in a run on a fake engine."""

import numpy as np
import runner_rig
from runner_rig import NAMES, PARAMS, wait_for

from tomostream_ioc.model.center import CenterEstimate
from tomostream_ioc.model.control import Severity
from tomostream_ioc.model.params import ReconParams
from tomostream_ioc.model.state import RunState

rig = runner_rig.rig


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


def found_again(rig, binning, frames=3, shape=(8, 16)):
    """Put another binning in the run that is on, and let it go on."""
    engines = len(rig.engines)
    params = rig.runner.set_binning(binning)
    wait_for(lambda: rig.state() is RunState.ARMING)
    for _ in range(frames):
        rig.source.send(shape=shape)
    wait_for(lambda: len(rig.engines) > engines and rig.state() is RunState.RUNNING)
    assert rig.runner.status().center_found == params.center
    return params.center


def test_what_was_found_scales_with_center_when_the_binning_changes(rig):
    """By itself found and put into Center: both name one place in every binning."""
    rig.runner.set_center_auto(True)
    rig.run()
    fill(rig)
    wait_for(lambda: rig.listener.changed)
    assert rig.runner.status().center_found == 7.25
    assert [found_again(rig, binning) for binning in (2, 4, 2, 1)] == [3.375, 1.4375, 3.375, 7.25]
    # found again, in frames that are binned: the same column of the detector at 1x
    found_again(rig, 2)
    rig.engine.found = CenterEstimate(3.5, 0.9)
    for _ in range(15):
        rig.source.send()
    search_id = rig.runner.find_center()
    wait_for(lambda: rig.listener.searches_ended == [search_id])
    assert rig.runner.status().center_found == 3.5
    assert found_again(rig, 1) == 7.5
    assert rig.runner.status().center_confidence == 0.9
    # also while no run is on; the next one begins without
    rig.runner.abort()
    wait_for(lambda: rig.listener.ended)
    rig.runner.set_binning(4)
    assert rig.runner.status().center_found == 1.5
    rig.runner.start(NAMES, PARAMS)
    wait_for(lambda: rig.state() is RunState.ARMING)
    assert rig.runner.status().center_found == 0.0


def test_what_was_found_scales_with_center_when_the_detector_bins(rig):
    rig.runner.set_center_auto(True)
    rig.run()
    fill(rig)
    wait_for(lambda: rig.listener.changed)
    for _ in range(4):  # three strays, then it is a change
        rig.source.send(shape=(4, 8))
    wait_for(lambda: len(rig.engines) == 2 and rig.state() is RunState.RUNNING)
    assert rig.listener.changed[-1].center == rig.runner.status().center_found == 3.375
    assert found_again(rig, 2, shape=(4, 8)) == 1.4375


def test_what_is_found_while_the_binning_is_put_is_in_the_new_pixels(rig):
    rig.run()
    fill(rig)

    class Late:
        def step(self):
            rig.runner.set_binning(2)
            return CenterEstimate(7.25, 0.9)

    seen = []
    rig.listener.center_search_ended = lambda search_id: seen.append(rig.runner.status())
    rig.engine.center_search = lambda params: Late()
    rig.runner.find_center()
    wait_for(lambda: seen)
    assert seen[0].center_found == 3.375
    assert "Centre found at 3.38" in seen[0].message


def test_an_engine_that_fails_in_a_search_is_a_fault_and_the_search_ends(rig):
    rig.run()
    fill(rig)

    def fail(params):
        raise RuntimeError("CUDA error: device lost")

    rig.engine.center_search = fail
    search_id = rig.runner.find_center()
    wait_for(lambda: rig.listener.searches_ended == [search_id])
    wait_for(lambda: rig.state() is RunState.FAULT)
