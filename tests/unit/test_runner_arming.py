"""The start of a run on a fake stream: what is waited for, refused, aborted, set."""

import threading
import time

import numpy as np
import pytest
import runner_rig
from runner_rig import (
    NAMES,
    PARAMS,
    THETA,
    wait_for,
)

from tomostream_ioc.model.control import Severity
from tomostream_ioc.model.params import ReconParams
from tomostream_ioc.model.state import RunState

rig = runner_rig.rig


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


def test_angles_that_come_late_are_waited_for_as_an_image_is(rig):
    """For longer than a channel may take to answer, 0.3 s here."""
    rig.source.theta = None
    rig.runner.start(NAMES, PARAMS)
    sentence = "Arming: waiting for angles from sim:Theta: start the scan"
    wait_for(lambda: rig.runner.status().message == sentence)
    threading.Event().wait(0.5)
    assert rig.runner.status().message == sentence
    rig.source.handler.on_theta(THETA)
    wait_for(lambda: "waiting for the first projection" in rig.runner.status().message)
    rig.source.send()
    wait_for(lambda: rig.state() is RunState.RUNNING)


def test_the_scan_is_on_its_way_while_fields_are_taken_and_angles_have_time(rig):
    rig.source.theta = None
    run_id = rig.runner.start(NAMES, PARAMS)
    wait_for(lambda: rig.source.handler is not None)
    rig.source.handler.on_frame_type("DarkField")
    threading.Event().wait(1.2)  # three times 0.3 s is over
    assert "waiting for angles" in rig.runner.status().message
    assert "FrameType is DarkField" in rig.runner.status().message
    rig.source.handler.on_frame_type("Projection")
    began_s = time.monotonic()
    wait_for(lambda: rig.listener.ended == [run_id])
    assert 0.6 < time.monotonic() - began_s < 4.0
    assert "no angles came from sim:Theta" in rig.runner.status().message


@pytest.mark.parametrize(
    ("prepare", "reason"),
    [
        (lambda s: setattr(s, "theta_there", False), "theta channel sim:Theta does not answer"),
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
