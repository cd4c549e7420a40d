"""The engine over time: incremental updates, changes of parameters and fields, cancelling."""

import threading

import numpy as np
import pytest
import test_recon_phantom
from test_recon_phantom import Phantom, half_turn, middle, worst

from tomostream_ioc.errors import EngineError, FieldError
from tomostream_ioc.recon.engine import OrthoEngine
from tomostream_ioc.recon.filtered import ChunkedFrames
from tomostream_ioc.recon.geometry import ScanGeometry

N_ANGLES = 48
PHANTOM = Phantom(64, 24)
THETA = half_turn(N_ANGLES)
SLOTS = np.arange(N_ANGLES)
RAW = PHANTOM.raw(THETA, 31.0)
#: another object: what comes in the second half turn
OTHER = Phantom(64, 24, scale=0.6).raw(THETA + 180.0, 31.0)
PARAMS = middle(PHANTOM, center=31.0)


#: blocks of the chunked policy, so small that these few frames are several
CHUNK = 7


@pytest.fixture(params=["numba", "torch", "numba, chunked", "torch, chunked"])
def library(request):
    """What computes, and by which memory policy: see `engine_for`."""
    return request.param


def engine_for(*arguments, library="numba", **options):
    library, _, policy = library.partition(", ")
    policy = policy or "all on device"
    engine = test_recon_phantom.engine_for(*arguments, library=library, policy=policy, **options)
    if isinstance(engine._filtered, ChunkedFrames):
        engine._filtered.n_places = CHUNK
    return engine


def full_engine(raw=RAW, theta=THETA, **options):
    engine = engine_for(PHANTOM, N_ANGLES, **options)
    engine.push(raw, theta, SLOTS)
    return engine


def test_incremental_equals_full(library):
    engine = full_engine(library=library)
    engine.reconstruct(PARAMS)
    for turn in range(4):
        raw, theta = (OTHER, THETA + 180.0) if turn % 2 == 0 else (RAW, THETA + 360.0)
        for first in range(0, N_ANGLES, 7):
            part = slice(first, first + 7)
            engine.push(raw[part], theta[part], SLOTS[part])
        fresh = full_engine(raw, theta, library=library).reconstruct(PARAMS)
        assert worst(engine.reconstruct(PARAMS), fresh) < 1e-5


def test_thousands_of_updates_leave_no_drift():
    phantom = Phantom(32, 8)
    theta = half_turn(16)
    rng = np.random.default_rng(5)
    engine = engine_for(phantom, 16)
    params = middle(phantom, filter_type="Ramp")
    raw = rng.integers(200, 60000, (16, 8, 32)).astype("uint16")
    engine.push(raw, theta, np.arange(16))
    engine.reconstruct(params)
    for turn in range(1, 301):
        raw = rng.integers(200, 60000, (16, 8, 32)).astype("uint16")
        engine.push(raw, theta + 180.0 * turn, np.arange(16))
    shown = engine.reconstruct(params)
    fresh = engine_for(phantom, 16)
    fresh.push(raw, theta + 180.0 * 300, np.arange(16))
    assert worst(shown, fresh.reconstruct(params)) < 1e-5


def test_ring_that_is_not_full_is_scaled_by_what_is_there(library):
    phantom = Phantom(64, 24)
    engine = engine_for(phantom, 180, library=library)
    theta = half_turn(180)
    raw = phantom.raw(theta, 31.0)
    engine.push(raw[::3], theta[::3], np.arange(0, 180, 3))
    assert engine.n_filled == 60
    third = engine.reconstruct(PARAMS)
    alone = engine_for(phantom, 60, library=library)
    alone.push(raw[::3], theta[::3], np.arange(60))
    assert worst(third, alone.reconstruct(PARAMS)) < 1e-6
    true = phantom.slices(32, 32, 12)[0]
    assert third.z[27:37, 27:37].mean() == pytest.approx(true[27:37, 27:37].mean(), rel=0.08)
    engine.push(raw[1::3], theta[1::3], np.arange(1, 180, 3))
    engine.push(raw[2::3], theta[2::3], np.arange(2, 180, 3))
    whole = engine_for(phantom, 180, library=library)
    whole.push(raw, theta, np.arange(180))
    assert worst(engine.reconstruct(PARAMS), whole.reconstruct(PARAMS)) < 1e-5


def test_uneven_angles_have_their_share_of_the_half_turn(library):
    """A scan that gets slower: where angles are dense each counts less."""
    theta = 180.0 * (np.arange(240) / 240) ** 1.5
    raw = PHANTOM.raw(theta, 31.0)
    params = middle(PHANTOM, center=31.0, filter_type="Ramp")
    engine = engine_for(PHANTOM, 240, library=library)
    for first in range(0, 240, 17):  # filling, with slices in between
        part = slice(first, first + 17)
        engine.push(raw[part], theta[part], np.arange(240)[part])
        engine.reconstruct(params)
    shown = engine.reconstruct(params)
    even = engine_for(PHANTOM, 240, library=library)
    even.push(PHANTOM.raw(half_turn(240), 31.0), half_turn(240), np.arange(240))
    expected = even.reconstruct(params)
    assert np.abs(shown.z - expected.z).max() < 0.15 * np.abs(expected.z).max()
    assert np.sqrt(np.mean((shown.z - expected.z) ** 2)) < 0.015 * np.abs(expected.z).max()
    fresh = engine_for(PHANTOM, 240, library=library)
    fresh.push(raw, theta, np.arange(240))
    assert worst(shown, fresh.reconstruct(params)) < 0.02  # shares differ by their tolerance


def test_first_batch_shows_at_once(library):
    engine = engine_for(PHANTOM, N_ANGLES, library=library)
    engine.push(RAW[:1], THETA[:1], SLOTS[:1])
    slices = engine.reconstruct(PARAMS)
    assert engine.n_filled == 1
    assert np.isfinite(slices.z).all()
    assert slices.z.std() > 0


def test_of_frames_for_one_slot_the_last_wins(library):
    engine = full_engine(library=library)
    engine.reconstruct(PARAMS)
    engine.push(
        np.stack((OTHER[5], OTHER[9], OTHER[3])), THETA[[5, 9, 3]] + 180.0, np.array([3, 9, 3])
    )
    raw, theta = RAW.copy(), THETA.copy()
    raw[[9, 3]], theta[[9, 3]] = OTHER[[9, 3]], THETA[[9, 3]] + 180.0
    assert engine.n_filled == N_ANGLES
    fresh = full_engine(raw, theta, library=library).reconstruct(PARAMS)
    assert worst(engine.reconstruct(PARAMS), fresh) < 1e-5


@pytest.mark.parametrize(
    "changes",
    [
        {"center": 28.25}, {"ortho_x": 3}, {"ortho_y": 60}, {"ortho_z": 1}, {"rot_x_deg": 10.0},
        {"rot_y_deg": -7.0}, {"rot_z_deg": 4.0}, {"filter_type": "Ramp"}, {"dezinger": 3},
    ],
)  # fmt: skip
def test_parameter_change_equals_a_fresh_engine(library, changes):
    engine = full_engine(library=library)
    engine.reconstruct(PARAMS)
    changed = middle(PHANTOM, **{"center": 31.0} | changes)
    fresh = full_engine(library=library).reconstruct(changed)
    assert worst(engine.reconstruct(changed), fresh) < 1e-6
    assert worst(fresh, engine.reconstruct(PARAMS)) > 1e-3 or changes == {"dezinger": 3}
    # and pushes go on at the new parameters
    engine.reconstruct(changed)
    engine.push(OTHER[:9], THETA[:9] + 180.0, SLOTS[:9])
    raw, theta = RAW.copy(), THETA.copy()
    raw[:9], theta[:9] = OTHER[:9], THETA[:9] + 180.0
    fresh = full_engine(raw, theta, library=library).reconstruct(changed)
    assert worst(engine.reconstruct(changed), fresh) < 1e-5


def test_only_the_slice_that_moved_is_rebuilt():
    engine = full_engine()
    engine.reconstruct(PARAMS)
    added = []
    projector = engine._backend.projector
    for name in ("add_z", "add_vertical"):
        real = getattr(projector, name)

        def spy(*arguments, name=name, real=real):
            added.append(name)
            real(*arguments)

        setattr(projector, name, spy)
    engine.reconstruct(PARAMS)
    assert not added
    engine.reconstruct(middle(PHANTOM, center=31.0, ortho_x=5))
    assert added == ["add_vertical"]
    engine.reconstruct(middle(PHANTOM, center=31.0, ortho_x=5, ortho_z=5))
    assert added == ["add_vertical", "add_z"]


@pytest.mark.parametrize("which", ["dark", "flat"])
def test_field_change_equals_a_fresh_engine(library, which):
    engine = full_engine(library=library)
    engine.reconstruct(PARAMS)
    dark, flat = PHANTOM.dark(), PHANTOM.flat()
    if which == "dark":
        dark = dark + 300.0
        engine.set_dark(dark)
    else:
        flat = flat * 1.1
        engine.set_flat(flat)
    engine.push(OTHER[:5], THETA[:5] + 180.0, SLOTS[:5])  # meanwhile frames go on coming
    raw, theta = RAW.copy(), THETA.copy()
    raw[:5], theta[:5] = OTHER[:5], THETA[:5] + 180.0
    fresh = engine_for(PHANTOM, N_ANGLES, fields=False, library=library)
    fresh.set_dark(dark)
    fresh.set_flat(flat)
    fresh.push(raw, theta, SLOTS)
    assert worst(engine.reconstruct(PARAMS), fresh.reconstruct(PARAMS)) < 1e-5


def test_the_same_field_again_costs_nothing(monkeypatch):
    engine = full_engine()
    engine.reconstruct(PARAMS)
    monkeypatch.setattr(engine._chain, "filter", None)  # would fail
    engine.set_dark(PHANTOM.dark())
    engine.set_flat(PHANTOM.flat())
    engine.reconstruct(PARAMS)


def test_fields_of_the_wrong_shape_leave_the_last_good_one(library):
    engine = full_engine(library=library)
    before = engine.reconstruct(PARAMS)
    for bad in (np.ones((64, 24)), np.ones(64 * 24), np.full((24, 64), np.nan)):
        with pytest.raises(FieldError, match="dark"):
            engine.set_dark(bad)
        with pytest.raises(FieldError, match="flat"):
            engine.set_flat(bad)
    assert worst(engine.reconstruct(PARAMS), before) == 0.0


def test_without_fields_there_is_a_picture(library):
    engine = engine_for(PHANTOM, N_ANGLES, fields=False, library=library)
    flat = np.full((24, 64), 40000.0)
    raw = PHANTOM.raw(THETA, 31.0, dark=np.zeros((24, 64)), flat=flat)
    assert not engine.has_flat
    engine.push(raw[:20], THETA[:20], SLOTS[:20])
    engine.push(raw[20:], THETA[20:], SLOTS[20:])
    stand_in = engine.reconstruct(PARAMS)
    assert not engine.has_flat
    engine.set_flat(flat)
    assert engine.has_flat
    assert worst(stand_in, engine.reconstruct(PARAMS)) < 0.02


class Stop(Exception):  # noqa: N818
    pass


class Heartbeat:
    """Raises at the beat number ``stop_at``."""

    def __init__(self):
        self.beats = 0
        self.stop_at = 0

    def __call__(self):
        self.beats += 1
        if self.beats == self.stop_at:
            raise Stop


@pytest.mark.parametrize("work", ["first", "filter", "center", "flat", "push"])
def test_cancelled_work_is_done_again(library, work):
    expected_flat = PHANTOM.flat() * (1.1 if work == "flat" else 1.0)
    changes = {"filter": {"filter_type": "Ramp"}, "center": {"center": 30.0}}.get(work, {})
    params = middle(PHANTOM, **{"center": 31.0} | changes)
    raw, theta = (OTHER, THETA + 180.0) if work == "push" else (RAW, THETA)
    fresh = engine_for(PHANTOM, N_ANGLES, fields=False, library=library)
    fresh.set_dark(PHANTOM.dark())
    fresh.set_flat(expected_flat)
    fresh.push(raw, theta, SLOTS)
    expected = fresh.reconstruct(params)

    stop_at = 0
    for stop_at in range(1, 12):
        heartbeat = Heartbeat()
        engine = engine_for(PHANTOM, N_ANGLES, library=library, heartbeat=heartbeat)
        engine._filtered.frames_at_once = 10
        engine.push(RAW, THETA, SLOTS)
        if work != "first":
            engine.reconstruct(PARAMS)
        if work == "flat":
            engine.set_flat(expected_flat)
        heartbeat.beats, heartbeat.stop_at = 0, stop_at
        try:
            if work == "push":
                engine.push(raw, theta, SLOTS)
            engine.reconstruct(params)
        except Stop:
            heartbeat.stop_at = 0
            if stop_at % 2:  # in between something else is asked for
                engine.reconstruct(middle(PHANTOM, filter_type="Shepp-logan"))
            if work == "push":
                engine.push(raw, theta, SLOTS)
            assert worst(engine.reconstruct(params), expected) < 1e-5
        else:
            break
    assert stop_at > 3


@pytest.mark.parametrize("broken", ["filter", "add_vertical"])
def test_a_failure_while_pushing_leaves_the_engine_consistent(library, broken):
    engine = full_engine(library=library)
    engine.reconstruct(PARAMS)
    owner = engine._chain if broken == "filter" else engine._backend.projector
    real = getattr(owner, broken)

    def fail(*_):
        raise RuntimeError("out of memory")

    setattr(owner, broken, fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        engine.push(OTHER[:9], THETA[:9] + 180.0, SLOTS[:9])
    setattr(owner, broken, real)
    raw, theta = RAW.copy(), THETA.copy()
    raw[:9], theta[:9] = OTHER[:9], THETA[:9] + 180.0
    fresh = full_engine(raw, theta, library=library).reconstruct(PARAMS)
    assert worst(engine.reconstruct(PARAMS), fresh) < 1e-5


def test_reset_empties_the_ring_and_keeps_the_fields(library):
    engine = full_engine(OTHER, library=library)
    engine.reconstruct(PARAMS)
    engine.reset()
    assert engine.n_filled == 0
    assert engine.has_flat
    with pytest.raises(EngineError, match="No frame"):
        engine.reconstruct(PARAMS)
    engine.push(RAW[:30], THETA[:30], SLOTS[:30])
    fresh = engine_for(PHANTOM, N_ANGLES, library=library)
    fresh.push(RAW[:30], THETA[:30], SLOTS[:30])
    assert worst(engine.reconstruct(PARAMS), fresh.reconstruct(PARAMS)) < 1e-6


def test_slices_are_the_receivers_own(library):
    engine = full_engine(library=library)
    first = engine.reconstruct(PARAMS)
    kept = first.z.copy(), first.y.copy(), first.x.copy()
    engine.push(OTHER, THETA + 180.0, SLOTS)
    engine.reconstruct(PARAMS)
    for array, copy in zip((first.z, first.y, first.x), kept, strict=True):
        np.testing.assert_array_equal(array, copy)
        assert array.flags.c_contiguous
        assert array.flags.writeable


@pytest.mark.parametrize(
    ("frames", "theta", "slots"),
    [
        (RAW[:2, :, :-1], THETA[:2], SLOTS[:2]),
        (RAW[0], THETA[:1], SLOTS[:1]),
        (RAW[:2].astype("int16"), THETA[:2], SLOTS[:2]),
        (RAW[:2].astype(">u2"), THETA[:2], SLOTS[:2]),
        (RAW[:2], THETA[:3], SLOTS[:2]),
        (RAW[:2], THETA[:2], SLOTS[:1]),
        (RAW[:2], np.array([0.0, np.nan]), SLOTS[:2]),
        (RAW[:2], THETA[:2], np.array([0, N_ANGLES])),
        (RAW[:2], THETA[:2], np.array([-1, 0])),
        (RAW[:2], THETA[:2], np.array([0.0, 1.0])),
    ],
)
def test_frames_that_do_not_fit_are_refused(library, frames, theta, slots):
    engine = full_engine(library=library)
    before = engine.reconstruct(PARAMS)
    with pytest.raises(ValueError, match=r"frames|slots|angle"):
        engine.push(frames, theta, slots)
    assert worst(engine.reconstruct(PARAMS), before) == 0.0


def test_read_only_frames_and_an_empty_batch(library):
    engine = engine_for(PHANTOM, N_ANGLES, library=library)
    raw = RAW.copy()
    raw.flags.writeable = False
    engine.push(raw[:0], THETA[:0], SLOTS[:0])
    assert engine.n_filled == 0
    engine.push(raw, THETA, SLOTS)
    assert engine.n_filled == N_ANGLES


def test_an_unknown_pixel_type_is_refused():
    with pytest.raises(ValueError, match="complex64"):
        OrthoEngine(ScanGeometry(4, 4, 4), "complex64", "cpu")


def test_release_ends_the_threads():
    before = threading.active_count()
    engine = full_engine(n_threads=3)
    engine.reconstruct(PARAMS)
    assert before < threading.active_count() <= before + 3
    engine.release()
    assert threading.active_count() == before
