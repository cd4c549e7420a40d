"""Ring removal in the engine: what of the stripes is taken out of the slices, and when."""

import warnings

import numpy as np
import pytest
import stripes_rig
from stripes_rig import (
    CENTER,
    CLEAN,
    GAIN,
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
    plateaus,
    raw_frames,
    ring_amplitudes,
)
from test_recon_phantom import Phantom, engine_for, half_turn, middle, worst
from test_stripes import fw_by_definition

from tomostream_ioc.recon import stripes
from tomostream_ioc.recon.chain import RING_SCALE
from tomostream_ioc.recon.filters import fft_length, response

library = stripes_rig.library
clean = stripes_rig.clean


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
