"""Ring removal in the engine: what of the stripes is taken out of the slices, and when."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
import pywt
from test_recon_engine import Heartbeat, Stop
from test_recon_phantom import Phantom, engine_for, half_turn, middle, worst
from test_stripes import fw_by_definition

from tomostream_ioc.recon import stripes
from tomostream_ioc.recon.chain import RING_SCALE
from tomostream_ioc.recon.filters import fft_length, response

N, N_ROWS, N_ANGLES = 128, 20, 90
PHANTOM = Phantom(N, N_ROWS)
CENTER = N / 2 - 0.5
THETA = half_turn(N_ANGLES)
SLOTS = np.arange(N_ANGLES)
#: columns that respond otherwise in projections than in the flat, by a few percent
GAIN = 1.0 + 0.03 * np.random.default_rng(4).standard_normal((N_ROWS, N))
OFF = middle(PHANTOM, filter_type="Butterworth")
ON = middle(PHANTOM, filter_type="Butterworth", ring_removal="fw")


def raw_frames(theta=THETA, gain: np.ndarray | float = GAIN, scale=1.0, dtype="uint16"):
    dark = PHANTOM.dark()
    with_gain = dark + (PHANTOM.flat() - dark) * gain
    return Phantom(N, N_ROWS, scale).raw(theta, CENTER, dtype, flat=with_gain)


RAW = raw_frames()
CLEAN = raw_frames(gain=1.0)


def full_engine(raw=RAW, theta=THETA, n_angles=N_ANGLES, **options):
    engine = engine_for(PHANTOM, n_angles, **options)
    engine.push(raw, theta, np.arange(len(raw)))
    return engine


def plateaus(slices, like):
    """Each slice where the true one is constant for 3 pixels around."""
    for name, true in zip(
        "zyx", PHANTOM.slices(like.ortho_x, like.ortho_y, like.ortho_z), strict=True
    ):
        inner = true > 0
        for shift in (-3, 3):
            for axis in (0, 1):
                inner &= np.roll(true, shift, axis) == true
        yield getattr(slices, name)[inner], true[inner]


def ring_amplitudes(slices, clean):
    """Deviation of each slice from the one without rings, on the plateaus, as share of mu."""
    pairs = zip(plateaus(slices, ON), plateaus(clean, ON), strict=True)
    return np.array([(a - b).std() / true.mean() for (a, true), (b, _) in pairs])


@pytest.fixture(params=["numba", "torch"])
def library(request):
    return request.param


@pytest.fixture(scope="module")
def clean():
    return full_engine(CLEAN).reconstruct(OFF)


def test_rings_fall_and_the_sample_stays(library, clean):
    engine = full_engine(library=library)
    before = ring_amplitudes(engine.reconstruct(OFF), clean)
    shown = engine.reconstruct(ON)
    after = ring_amplitudes(shown, clean)
    assert (before > 0.1).all()
    assert (after < before / [2.5, 3.0, 4.0]).all(), before / after
    for got, true in plateaus(shown, ON):
        assert got.mean() == pytest.approx(true.mean(), rel=0.015)


def test_of_what_has_no_rings_little_is_taken(library, clean):
    shown = full_engine(CLEAN, library=library).reconstruct(ON)
    assert (ring_amplitudes(shown, clean) < 0.06).all()
    for got, true in plateaus(shown, ON):
        assert got.mean() == pytest.approx(true.mean(), rel=0.015)


def test_reference_and_kernels_agree():
    reference = full_engine(library="torch", compute="float64").reconstruct(ON)
    assert worst(full_engine(library="torch").reconstruct(ON), reference) < 1e-3
    assert worst(full_engine(library="numba").reconstruct(ON), reference) < 1e-3


def test_z_slice_is_that_of_the_sinogram_without_stripes():
    """The exact one: each row first without its stripes, then everything else."""
    integrals = PHANTOM.projections(THETA, CENTER) - np.log(GAIN)
    row = ON.ortho_z
    corrected = integrals.copy()
    corrected[:, row] = fw_by_definition(integrals[:, row], stripes.default_level(N))
    options = {"dtype": "float64", "fields": False, "library": "torch", "compute": "float64"}
    engines = []
    for values in (integrals, corrected):
        engine = engine_for(PHANTOM, N_ANGLES, **options)
        engine.set_flat(np.ones((N_ROWS, N)))
        engine.push(np.exp(-values), THETA, SLOTS)
        engines.append(engine)
    expected = engines[1].reconstruct(OFF).z
    shown = engines[0].reconstruct(ON).z
    np.testing.assert_allclose(shown, expected, atol=1e-6 * np.abs(expected).max())


def test_vertical_slices_are_those_without_the_stripes_of_the_mean():
    engine = full_engine(library="torch", compute="float64")
    plain, shown = engine.reconstruct(OFF), engine.reconstruct(ON)
    n_fft = fft_length(N)
    mean = -np.log(
        np.clip((RAW - PHANTOM.dark()) / (PHANTOM.flat() - PHANTOM.dark()), 1e-6, None)
    ).mean(0)  # (n_rows, n_cols)
    spectrum = np.fft.rfft(mean, n_fft, axis=1) * response("Butterworth", n_fft)
    filtered = np.fft.irfft(spectrum, n_fft, axis=1)[:, :N]
    taken = stripes.constant_stripes(filtered)
    x = np.arange(N) - N // 2
    for name, offset in (("y", ON.ortho_y - N // 2), ("x", ON.ortho_x - N // 2)):
        expected = np.zeros((N_ROWS, N))
        for theta in np.deg2rad(THETA):
            px, py = (x, offset) if name == "y" else (offset, x)
            u = px * np.cos(theta) - py * np.sin(theta) + CENTER
            for z in range(N_ROWS):
                expected[z] += np.interp(u, np.arange(N), taken[z], 0.0, 0.0)
        expected *= np.pi / N_ANGLES
        difference = getattr(plain, name) - getattr(shown, name)
        np.testing.assert_allclose(difference, expected, atol=1e-5 * np.abs(expected).max())


def test_rows_of_the_vertical_slices_agree_with_the_z_slice(library):
    shown = full_engine(library=library).reconstruct(ON)
    rows = (
        (shown.y[ON.ortho_z], shown.z[ON.ortho_y]),
        (shown.x[ON.ortho_z], shown.z[:, ON.ortho_x]),
    )
    true = PHANTOM.slices(ON.ortho_x, ON.ortho_y, ON.ortho_z)[0].max()
    inner = slice(N // 4, -N // 4)
    for vertical, horizontal in rows:
        assert np.sqrt(np.mean((vertical - horizontal)[inner] ** 2)) < 0.12 * true
        assert vertical[inner].mean() == pytest.approx(horizontal[inner].mean(), rel=0.01)


def test_a_tilt_of_next_to_nothing_shows_nearly_the_same(library):
    """The tilted z slice goes the way of the vertical ones."""
    engine = full_engine(library=library)
    straight = engine.reconstruct(ON).z
    tilted = engine.reconstruct(middle(PHANTOM, filter_type="Butterworth", ring_removal="fw",
                                       rot_z_deg=1e-6)).z  # fmt: skip
    unchanged = engine.reconstruct(middle(PHANTOM, filter_type="Butterworth", rot_z_deg=1e-6)).z
    inner = np.hypot(*np.mgrid[-N // 2 : N // 2, -N // 2 : N // 2]) < 0.6 * N / 2
    distance = np.sqrt(np.mean((tilted - straight)[inner] ** 2))
    assert distance < 0.4 * np.sqrt(np.mean((unchanged - straight)[inner] ** 2))


@pytest.mark.parametrize("dezinger", [0, 3, 4])
def test_line_integrals_are_what_the_filter_gets(library, dezinger):
    raw = raw_frames(dtype="float32")
    raw[:, 3:5, 40:44] *= 7.0  # zingers
    raw[2, 10, 60:63] = np.nan
    engine = full_engine(raw, dtype="float32", library=library)
    flat = PHANTOM.flat()
    flat[[0, 10, 19], 100:104] = 0.0  # unusable pixels
    engine.set_flat(flat)
    engine.reconstruct(middle(PHANTOM, filter_type="Ramp", dezinger=dezinger))
    chain, projector = engine._chain, engine._backend.projector
    ring = np.asarray(projector._ring)  # pyright: ignore[reportAttributeAccessIssue]
    ring = ring.view(np.float16) if library == "numba" else ring
    slots = np.array([5, 2, 70])
    n_fft = fft_length(N)
    for row in (0, 1, 3, 4, 10, 19):
        integrals = chain.line_integrals(slots, row, dezinger)
        assert integrals.shape == (3, N)
        spectrum = np.fft.rfft(integrals, n_fft, axis=1) * response("Ramp", n_fft)
        filtered = RING_SCALE * np.fft.irfft(spectrum, n_fft, axis=1)[:, :N]
        expected = ring[engine._ring.places[slots], :, row]
        np.testing.assert_allclose(filtered, expected, atol=1e-3 * np.abs(expected).max())


@pytest.mark.parametrize(
    "changes",
    [
        {}, {"center": 60.25}, {"ortho_x": 40}, {"ortho_y": 90}, {"ortho_z": 3}, {"rot_x_deg": 9.0},
        {"rot_y_deg": -7.0}, {"rot_z_deg": 4.0}, {"filter_type": "Ramp"}, {"dezinger": 3},
    ],
)  # fmt: skip
def test_switching_and_changing_equals_a_fresh_engine(library, changes):
    values = {"filter_type": "Butterworth", "ring_removal": "fw"} | changes
    changed, off = middle(PHANTOM, **values), middle(PHANTOM, **values | {"ring_removal": "None"})
    fresh = full_engine(library=library).reconstruct(changed)
    fresh_off = full_engine(library=library).reconstruct(off)
    assert worst(fresh, fresh_off) > 0.05
    engine = full_engine(library=library)
    engine.reconstruct(OFF)
    engine.reconstruct(ON)
    assert worst(engine.reconstruct(changed), fresh) < 1e-5
    assert worst(engine.reconstruct(off), fresh_off) < 1e-5
    assert worst(engine.reconstruct(changed), fresh) < 1e-5
    assert worst(engine.reconstruct(ON), full_engine(library=library).reconstruct(ON)) < 1e-5


@pytest.mark.parametrize("field", ["dark", "flat"])
def test_new_fields_equal_a_fresh_engine(library, field):
    engine = full_engine(library=library)
    engine.reconstruct(ON)
    fresh = engine_for(PHANTOM, N_ANGLES, fields=False, library=library)
    dark, flat = PHANTOM.dark(), PHANTOM.flat()
    if field == "dark":
        dark += 500.0
        engine.set_dark(dark)
    else:
        flat[:, 30:40] *= 1.1
        engine.set_flat(flat)
    fresh.set_dark(dark)
    fresh.set_flat(flat)
    fresh.push(RAW, THETA, SLOTS)
    assert worst(engine.reconstruct(ON), fresh.reconstruct(ON)) < 1e-5


@pytest.mark.parametrize("batch", [1, 7, 40])
def test_rings_stay_low_while_frames_come(library, batch, clean):
    """From the first frame on, while the ring fills and in the next half turn."""
    count = 2 * N_ANGLES
    theta = np.arange(count) * 180.0 / N_ANGLES
    raw = raw_frames(theta)
    engine = engine_for(PHANTOM, N_ANGLES, library=library)
    plain = engine_for(PHANTOM, N_ANGLES, library=library)
    worst_left = np.zeros(3)
    for first in range(0, count, batch):
        part = np.arange(first, min(first + batch, count))
        engine.push(raw[part], theta[part], part % N_ANGLES)
        plain.push(raw[part], theta[part], part % N_ANGLES)
        shown = engine.reconstruct(ON)
        if first >= N_ANGLES and (first // batch) % max(20 // batch, 1) == 0:
            before = ring_amplitudes(plain.reconstruct(OFF), clean)
            worst_left = np.maximum(worst_left, ring_amplitudes(shown, clean) / before)
    assert (worst_left < [0.45, 0.4, 0.3]).all()
    for got, true in plateaus(engine.reconstruct(ON), ON):
        assert got.mean() == pytest.approx(true.mean(), rel=0.02)
    # what goes on changes nothing of what a switch does
    fresh = engine_for(PHANTOM, N_ANGLES, library=library)
    fresh.push(raw[N_ANGLES:], theta[N_ANGLES:], SLOTS)
    engine.reconstruct(OFF)
    assert worst(engine.reconstruct(ON), fresh.reconstruct(ON)) < 1e-5


def test_stripes_that_change_are_followed(clean):
    """Other columns respond wrongly from the second half turn on."""
    other = 1.0 + 0.03 * np.random.default_rng(5).standard_normal((N_ROWS, N))
    engine = full_engine()
    engine.reconstruct(ON)
    count = 3 * N_ANGLES
    theta = 180.0 + np.arange(count) * 180.0 / N_ANGLES
    raw = raw_frames(theta, other)
    for first in range(0, count, 10):
        part = np.arange(first, first + 10)
        engine.push(raw[part], theta[part], part % N_ANGLES)
        engine.reconstruct(ON)
    shown = engine.reconstruct(ON)
    before = ring_amplitudes(engine.reconstruct(OFF), clean)
    assert (ring_amplitudes(shown, clean) < before / [2.5, 3.0, 4.0]).all()


def test_a_ring_that_is_not_full(library, clean):
    engine = full_engine(RAW[:30], THETA[:30], library=library)
    engine.reconstruct(ON)
    engine.push(RAW[30:33], THETA[30:33], SLOTS[30:33])
    few = engine.reconstruct(ON)
    fresh = full_engine(RAW[:33], THETA[:33], library=library)
    plain, expected = fresh.reconstruct(OFF), fresh.reconstruct(ON)
    for name in "zyx":
        error = np.abs(getattr(few, name) - getattr(expected, name)).std()
        assert error < 0.4 * np.abs(getattr(plain, name) - getattr(expected, name)).std()
    engine.push(RAW[33:60], THETA[33:60], SLOTS[33:60])
    engine.push(RAW[60:], THETA[60:], SLOTS[60:])
    # most of the ring is new: it all goes over to a new estimate at once
    shown = engine.reconstruct(ON)
    before = ring_amplitudes(engine.reconstruct(OFF), clean)
    assert (ring_amplitudes(shown, clean) < before / [2.5, 3.0, 4.0]).all()


def test_uneven_angles_and_another_order(library, clean):
    theta = 180.0 * (np.arange(N_ANGLES) / N_ANGLES) ** 1.2
    shuffled = np.random.default_rng(3).permutation(N_ANGLES)
    engine = full_engine(raw_frames(theta)[shuffled], theta[shuffled], library=library)
    even = full_engine(raw_frames(theta, 1.0)[shuffled], theta[shuffled], library=library)
    plain = even.reconstruct(OFF)
    before = ring_amplitudes(engine.reconstruct(OFF), plain)
    after = ring_amplitudes(engine.reconstruct(ON), plain)
    assert (after < before / [2.5, 3.0, 4.0]).all(), before / after


@pytest.mark.parametrize(("n", "n_rows", "n_angles"), [(101, 1, 7), (33, 3, 1), (16, 2, 5)])
def test_small_and_odd_sizes(library, n, n_rows, n_angles):
    phantom = Phantom(n, n_rows)
    theta = half_turn(n_angles)
    engine = engine_for(phantom, n_angles, library=library)
    engine.push(phantom.raw(theta, n / 2), theta, np.arange(n_angles))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        shown = engine.reconstruct(middle(phantom, ring_removal="fw"))
    assert all(np.isfinite(getattr(shown, name)).all() for name in "zyx")
    assert (worst(engine.reconstruct(middle(phantom)), shown) > 0) == (n >= 18)


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
