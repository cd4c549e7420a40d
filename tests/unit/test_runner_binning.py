"""StreamBinning and the run: on the fly, while idle, with frames that change, nothing twice."""

import threading
import time
from dataclasses import replace

import numpy as np
import runner_rig
from runner_rig import NAMES, wait_for

from tomostream_ioc.model.binning import Place
from tomostream_ioc.model.control import Severity
from tomostream_ioc.model.frame import Frame
from tomostream_ioc.model.params import ReconParams
from tomostream_ioc.model.state import RunState
from tomostream_ioc.runner.board import ParamStore

rig = runner_rig.rig

PARAMS = ReconParams(center=8.5, ortho_x=11, ortho_y=6, ortho_z=5, pixel_size_um=1.5)
UINT16 = np.dtype("uint16")


def place(rig):
    return Place.of(rig.engine.params[-1])


def rebin(rig, binning, frames=3):
    """Put another binning in a run and send frames until it runs again."""
    engines = len(rig.engines)
    params = rig.runner.set_binning(binning)
    wait_for(lambda: rig.state() is RunState.ARMING)
    for _ in range(frames):
        rig.source.send()
    wait_for(lambda: len(rig.engines) > engines and rig.state() is RunState.RUNNING)
    wait_for(lambda: rig.engine.n_filled == frames and rig.engine.params)
    return params


def test_frames_are_binned_before_they_are_staged(rig):
    rig.runner.set_binning(2)
    rig.run()
    pixels = np.arange(8 * 16, dtype=np.uint16).reshape(8, 16)
    rig.source.handler.on_frame(Frame(2, pixels, time.time(), time.monotonic()))
    wait_for(lambda: 1 in rig.engine.ring)
    assert rig.engine.shape == (18, 4, 8, UINT16)
    mean = pixels.reshape(4, 2, 8, 2).mean(axis=(1, 3))
    assert np.array_equal(rig.engine.ring[1], np.floor(mean + 0.5))
    assert rig.counts.received == 2
    wait_for(lambda: rig.sink.published)
    assert rig.sink.published[-1][1].binning == 2


def test_status_says_the_binning(rig):
    rig.runner.set_binning(4)
    rig.runner.start(NAMES, PARAMS)
    wait_for(lambda: rig.source.handler is not None)
    for kind in ("dark", "flat"):  # both are waited for, so that the sentence stands for a while
        rig.source.handler.on_connection(kind, kind, True)
    rig.source.send(dtype="uint8")
    sentence = "Arming: 18 angles of 4 x 2 uint16, binned 4x"
    wait_for(lambda: rig.runner.status().message.startswith(sentence))


def test_on_the_fly_the_same_place_is_shown_and_nothing_is_lost(rig):
    rig.run(PARAMS)
    wait_for(lambda: rig.engine.params)
    assert place(rig) == Place(8.5, 11, 6, 5)
    half = rebin(rig, 2)
    assert Place.of(half) == Place(4.0, 6, 3, 2)
    assert place(rig) == Place.of(half)
    assert rig.engines[0].released
    assert rig.engine.shape == (18, 4, 8, UINT16)
    quarter = rebin(rig, 4)
    assert Place.of(quarter) == Place(1.75, 3, 2, 1)
    # rounded twice, and yet where the user put it
    whole = rebin(rig, 1)
    assert whole == PARAMS
    assert place(rig) == Place.of(PARAMS)
    counts = rig.counts
    assert (counts.received, counts.missed, counts.rejected, counts.dropped) == (10, 0, 0, 0)
    # set_binning() has answered with them: the run does not scale them again
    assert rig.listener.changed == []
    assert [engine.shape[2] for engine in rig.engines] == [16, 8, 4, 16]


def test_slices_of_the_old_frames_are_not_shown_at_the_new_place(rig):
    """Frames of the old binning are still waiting for a slow engine when it is changed."""
    rig.run(PARAMS)
    wait_for(lambda: rig.engine.params)
    slow, push = threading.Event(), rig.engine.push

    def push_slowly(*arguments):
        slow.wait(5)
        push(*arguments)

    rig.engine.push = push_slowly
    rig.source.send()
    rig.source.send()
    rig.runner.set_binning(2)
    slow.set()
    wait_for(lambda: rig.state() is RunState.ARMING)
    assert rig.engine.n_filled == 3
    assert {Place.of(params) for params in rig.engine.params} == {Place.of(PARAMS)}
    rig.source.send()
    wait_for(lambda: len(rig.engines) == 2 and rig.engine.params)
    assert {Place.of(params) for params in rig.engine.params} == {Place(4.0, 6, 3, 2)}
    for _, meta in rig.sink.published:
        assert Place.of(meta.params).center == (8.5 if meta.binning == 1 else 4.0)


def test_what_was_put_in_between_is_where_the_way_back_begins(rig):
    rig.runner.set_params(PARAMS)
    rig.runner.set_binning(2)
    rig.runner.set_params(ReconParams(center=5.0, ortho_x=7, ortho_y=3, ortho_z=2))
    back = rig.runner.set_binning(1)
    assert Place.of(back) == Place(10.5, 14, 6, 4)


def test_put_while_idle_the_records_follow_at_once_and_the_start_scales_nothing(rig):
    run_id = rig.run(PARAMS)
    rig.runner.abort()
    wait_for(lambda: rig.listener.ended == [run_id])
    half = rig.runner.set_binning(2)
    assert half is not None
    assert Place.of(half) == Place(4.0, 6, 3, 2)
    rig.run(half)
    wait_for(lambda: len(rig.engines) == 2 and rig.engine.params)
    assert place(rig) == Place.of(half)
    assert rig.listener.changed == []


def test_settings_that_were_saved_with_their_binning_are_not_scaled(rig):
    assert rig.runner.set_binning(2) is None  # before any parameters: as an IOC starts
    saved = ReconParams(center=3.25, ortho_x=7, ortho_y=1, ortho_z=3)
    rig.runner.set_params(saved)
    rig.run(saved)
    wait_for(lambda: rig.engine.params)
    assert place(rig) == Place.of(saved)


def test_a_binning_put_while_the_run_arms_is_that_of_its_engine(rig):
    rig.runner.start(NAMES, PARAMS)
    wait_for(lambda: rig.source.handler is not None)
    rig.runner.set_binning(2)
    rig.source.send()
    rig.source.send()
    wait_for(lambda: rig.state() is RunState.RUNNING)
    rig.source.send()
    wait_for(lambda: rig.engine.params and rig.engine.shape[1:3] == (4, 8))
    assert rig.runner.status().frame_shape == (4, 8)
    assert place(rig) == Place(4.0, 6, 3, 2)


def test_a_frame_that_was_staged_for_another_binning_is_counted(rig):
    opened = rig.source.open

    def open_(names, handler, timeout_s):
        channel = opened(names, handler, timeout_s)
        rig.source.send()
        rig.runner.set_binning(2)
        return channel

    rig.source.open = open_
    rig.runner.start(NAMES, PARAMS)
    wait_for(lambda: rig.counts.dropped == 1)
    rig.source.send()
    wait_for(lambda: rig.engines and rig.engine.params)
    assert [engine.shape[1:3] for engine in rig.engines] == [(4, 8)]
    assert place(rig) == Place(4.0, 6, 3, 2)


def test_there_and_back_before_a_frame_comes(rig):
    rig.run(PARAMS)
    wait_for(lambda: rig.engine.params)
    rig.runner.set_binning(4)
    rig.runner.set_binning(1)
    rig.source.send()
    wait_for(lambda: rig.engine.n_filled and rig.engine.params)
    wait_for(lambda: rig.state() is RunState.RUNNING)
    assert rig.engine.shape[1:3] == (8, 16)
    assert place(rig) == Place.of(PARAMS)


def test_a_detector_that_bins_as_well_scales_once_for_each(rig):
    rig.run(PARAMS)
    rebin(rig, 2)
    for _ in range(4):  # three strays, then it is a change
        rig.source.send(shape=(4, 8))
    wait_for(lambda: len(rig.engines) == 3 and rig.engine.params)
    assert rig.engine.shape[1:3] == (2, 4)
    assert place(rig) == Place.of(PARAMS.rescaled((8, 16), (4, 8)).rescaled((4, 8), (2, 4)))
    # said in the detector's pixels
    assert rig.counts.rejected == 3


def test_both_changes_at_once_arm_once(rig):
    rig.run(PARAMS)
    wait_for(lambda: rig.engine.params)
    rig.source.handler.on_theta(np.arange(0.0, 360.0, 5.0))
    rig.runner.set_binning(2)
    wait_for(lambda: rig.state() is RunState.ARMING)
    for _ in range(3):
        rig.source.send()
    wait_for(lambda: len(rig.engines) > 1 and rig.engine.n_filled == 3)
    assert [engine.shape for engine in rig.engines[1:]] == [(36, 4, 8, UINT16)]


def test_a_change_that_arming_has_followed_does_not_arm_again(rig):
    opened = rig.source.open

    def open_(names, handler, timeout_s):
        channel = opened(names, handler, timeout_s)
        rig.source.send()
        handler.on_theta(np.arange(0.0, 360.0, 5.0))
        rig.source.send()
        return channel

    rig.source.open = open_
    rig.runner.start(NAMES, PARAMS)
    wait_for(lambda: rig.sink.published and rig.state() is RunState.RUNNING)
    before_s = rig.runner.status().heartbeat_s
    wait_for(lambda: rig.runner.status().heartbeat_s > before_s)  # it has looked for reasons since
    assert rig.state() is RunState.RUNNING
    assert [engine.shape[0] for engine in rig.engines] == [36]


def test_dark_and_flat_are_kept_and_binned_anew(rig):
    rig.run(PARAMS)
    flat = np.arange(8 * 16, dtype=np.float32).reshape(8, 16)
    dark = np.full((8, 16), 3.0, np.float32)
    dark[0, 0] = np.nan
    rig.source.handler.on_field("flat", flat)
    rig.source.handler.on_field("dark", dark)
    wait_for(lambda: len(rig.engine.fields) == 2)
    assert np.array_equal(rig.engine.fields["flat"], flat)
    rebin(rig, 2)
    assert np.array_equal(
        rig.engine.fields["flat"], flat.reshape(4, 2, 8, 2).mean(axis=(1, 3), dtype=np.float32)
    )
    assert np.isnan(rig.engine.fields["dark"][0, 0])
    assert (rig.engine.fields["dark"].ravel()[1:] == 3).all()
    newer = np.full((8, 16), 7.0, np.float32)
    rig.source.handler.on_field("flat", newer)
    wait_for(lambda: (rig.engine.fields["flat"] == 7).all())
    assert rig.engine.fields["flat"].shape == (4, 8)
    rebin(rig, 1)
    assert np.array_equal(rig.engine.fields["flat"], newer)


def test_a_field_of_the_binned_size_is_refused_in_the_detector_s_pixels(rig):
    rig.runner.set_binning(2)
    rig.run(PARAMS)
    rig.source.handler.on_field("flat", np.ones((4, 8), np.float32))
    wait_for(lambda: "FlatPVAName" in rig.runner.status().alarms)
    alarm = rig.runner.status().alarms["FlatPVAName"]
    assert alarm.severity == Severity.MAJOR
    assert "shape (4, 8), the detector's frames have (8, 16)" in alarm.message
    assert "flat" not in rig.engine.fields


def test_frames_smaller_than_the_binning_are_rejected_with_the_reason(rig):
    rig.runner.set_binning(4)
    rig.runner.start(NAMES, PARAMS)
    wait_for(lambda: rig.source.handler is not None)
    rig.source.send(shape=(3, 16))
    assert rig.counts.rejected == 1
    wait_for(lambda: "16 x 3 uint16 can't be binned 4x" in rig.runner.status().message)
    rig.source.send()
    wait_for(lambda: rig.state() is RunState.RUNNING)


def test_the_engine_is_told_the_size_of_a_binned_pixel_and_the_user_is_not(rig):
    rig.runner.set_binning(2)
    rig.run(PARAMS)
    wait_for(lambda: rig.sink.published)
    assert rig.engine.params[-1].pixel_size_um == 3.0
    assert rig.sink.published[-1][1].params.pixel_size_um == 1.5


def test_streaming_goes_on_while_the_binning_is_changed_again_and_again(rig):
    """Frames keep coming, as from a detector: each is staged or counted."""
    rig.run(PARAMS)
    sent = 1
    for binning in (2, 4, 1, 2, 1):
        rig.runner.set_binning(binning)
        deadline = time.monotonic() + 3
        while rig.engine.shape[2] != 16 // binning or not rig.engine.n_filled:
            assert time.monotonic() < deadline
            rig.source.send()
            sent += 1
            time.sleep(0.001)
    counts = rig.counts
    assert (counts.received, counts.usable) == (sent, sent)
    assert rig.runner.status().state is RunState.RUNNING
    rig.source.send()
    wait_for(lambda: place(rig) == Place.of(PARAMS))


def test_an_axis_that_is_found_while_the_binning_changes_moves_nothing_else():
    store = ParamStore(threading.Event())
    store.set_frame_shape((64, 96), scale=False)
    store.put(ReconParams(center=40.0, ortho_x=60, ortho_y=30, ortho_z=20))
    rebinned = store.set_binning(2)
    assert rebinned is not None
    store.set_center(47.5, 1)  # of frames that were not binned yet
    assert store.get() == replace(rebinned, center=23.5)
    store.set_center(22.0, 2)
    assert store.get().center == 22.0
