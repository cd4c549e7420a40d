"""The work of ring removal: when it is done, spread, cancelled, failing, forgotten."""

from dataclasses import replace

import numpy as np
import pytest
import pywt
import stripes_rig
from stripes_rig import (
    CLEAN,
    N_ANGLES,
    N_ROWS,
    OFF,
    ON,
    PHANTOM,
    RAW,
    SLOTS,
    THETA,
    N,
    full_engine,
    raw_frames,
)
from test_recon_engine import Heartbeat, Stop
from test_recon_phantom import middle, worst

from tomostream_ioc.recon import stripes

library = stripes_rig.library


def test_without_ring_removal_it_costs_nothing(monkeypatch):
    engine = full_engine()
    engine.reconstruct(ON)
    engine.reconstruct(OFF)
    for name in ("dwt", "idwt"):
        monkeypatch.setattr(pywt, name, None)  # would fail
    for name in ("over", "add_frames"):
        monkeypatch.setattr(engine._backend.projector, name, None)
    engine.push(RAW[:40], THETA[:40] + 180.0, SLOTS[:40])
    engine.reconstruct(OFF)
    engine.reconstruct(middle(PHANTOM, filter_type="Ramp"))


def test_work_is_spread_over_the_frames(monkeypatch):
    engine = full_engine()
    engine.reconstruct(ON)
    calls, moved = [], []
    for name in ("stripes", "constant_stripes"):
        real = getattr(stripes, name)

        def spy(*arguments, name=name, real=real, **options):
            calls.append(name)
            return real(*arguments, **options)

        monkeypatch.setattr(stripes, name, spy)
    update_stripes = engine._sums.update_stripes

    def spy_on_views(frames, views, heartbeat):
        moved.append(len(views))
        update_stripes(frames, views, heartbeat)

    monkeypatch.setattr(engine._sums, "update_stripes", spy_on_views)
    engine.reconstruct(ON)
    engine.reconstruct(middle(PHANTOM, filter_type="Butterworth", ring_removal="fw", ortho_x=9))
    assert not calls  # stripes are the same wherever the vertical slices are
    most = 0
    for frame in range(3 * N_ANGLES):
        slot, before = frame % N_ANGLES, len(moved)
        engine.push(RAW[slot : slot + 1], THETA[slot : slot + 1] + 180.0, SLOTS[slot : slot + 1])
        engine.reconstruct(ON)
        most = max(most, sum(moved[before:]))
    # for the z slice and for the others: the new frame and one that goes over, in for out
    assert most == 8
    assert calls == ["constant_stripes"] * 3


@pytest.mark.parametrize("work", ["on", "center", "filter", "renewal"])
def test_cancelled_work_is_done_again(library, work):
    changes = {"filter": {"filter_type": "Ramp"}, "center": {"center": 60.0}}.get(work, {})
    params = middle(PHANTOM, **{"filter_type": "Butterworth", "ring_removal": "fw"} | changes)

    def begun(heartbeat):
        engine = full_engine(RAW[:30], THETA[:30], library=library, heartbeat=heartbeat)
        engine.reconstruct(OFF if work == "on" else ON)
        if work == "renewal":  # so many at once that all stripes are late
            engine.push(RAW[30:], THETA[30:], SLOTS[30:])
        return engine

    expected = begun(Heartbeat()).reconstruct(params)
    stop_at = 0
    for stop_at in range(1, 60, 3):
        heartbeat = Heartbeat()
        engine = begun(heartbeat)
        heartbeat.beats, heartbeat.stop_at = 0, stop_at
        try:
            engine.reconstruct(params)
        except Stop:
            heartbeat.stop_at = 0
            if stop_at % 2 and work != "renewal":  # in between something else is asked for
                engine.reconstruct(middle(PHANTOM, filter_type="Shepp-logan", ring_removal="fw"))
            assert worst(engine.reconstruct(params), expected) < 1e-5
            engine.push(RAW, THETA, SLOTS)
            engine.reconstruct(params)
            engine.reconstruct(OFF)
            fresh = full_engine(library=library).reconstruct(params)
            assert worst(engine.reconstruct(params), fresh) < 1e-5
        else:
            break
    assert 4 < stop_at < 59


@pytest.mark.parametrize("broken", ["stripes", "constant_stripes"])
def test_a_failure_leaves_the_engine_consistent(monkeypatch, broken):
    engine = full_engine()
    engine.reconstruct(OFF)
    real = getattr(stripes, broken)

    def fail(*_arguments, **_options):
        raise ArithmeticError("wavelets failed")

    monkeypatch.setattr(stripes, broken, fail)
    with pytest.raises(ArithmeticError, match="wavelets"):
        engine.reconstruct(ON)
    assert worst(engine.reconstruct(OFF), full_engine().reconstruct(OFF)) < 1e-6
    monkeypatch.setattr(stripes, broken, real)
    assert worst(engine.reconstruct(ON), full_engine().reconstruct(ON)) < 1e-6


def test_reset_forgets_the_stripes(library):
    other = 1.0 + 0.03 * np.random.default_rng(6).standard_normal((N_ROWS, N))
    engine = full_engine(raw_frames(gain=other), library=library)
    engine.reconstruct(ON)
    engine.reset()
    engine.push(RAW, THETA, SLOTS)
    assert worst(engine.reconstruct(ON), full_engine(library=library).reconstruct(ON)) < 1e-5
    engine.release()


def test_with_phase_retrieval_the_z_slice_has_the_stripes_of_the_mean(library):
    """Phase retrieval needs whole frames, so there is no sinogram of a single row."""
    phase = {"energy_kev": 20.0, "distance_mm": 20.0, "alpha": 1e-2, "pixel_size_um": 1.0}
    slices = {}
    for raw in (RAW, CLEAN):
        engine = full_engine(raw, library=library)
        for removal in ("None", "fw"):
            params = replace(ON, ring_removal=removal, **phase)
            slices[raw is CLEAN, removal] = engine.reconstruct(params)
        engine.release()
    for axis in "zyx":
        # what the wrong gains make of the slice, with and without removal
        rings = {
            removal: np.std(
                getattr(slices[False, removal], axis) - getattr(slices[True, removal], axis)
            )
            for removal in ("None", "fw")
        }
        assert rings["fw"] < 0.65 * rings["None"], (axis, rings)
