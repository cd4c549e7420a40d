"""Pixels as detectors send them: every type, and those that can't be used."""

import numpy as np
import pytest
import scipy.ndimage
import torch
from test_recon_phantom import Phantom, engine_for, half_turn, middle, worst

from tomostream_ioc.model.frame import FRAME_DTYPES
from tomostream_ioc.recon.chain.torch_ import without_zingers as torch_without_zingers
from tomostream_ioc.recon.kernels.dezinger import without_zingers
from tomostream_ioc.recon.kernels.rows import log_transmission
from tomostream_ioc.recon.preprocess import TRANSMISSION_FLOOR

PHANTOM = Phantom(64, 20)
THETA = half_turn(40)
SLOTS = np.arange(40)
PARAMS = middle(PHANTOM, center=31.0)

#: type -> dark and flat level; each uses values that a signed reading of the bits would spoil
LEVELS = {
    "int8": (-100.0, 120.0), "uint8": (5.0, 250.0), "int16": (-30000.0, 32000.0),
    "uint16": (500.0, 65000.0), "int32": (-2.0e9, 2.1e9), "uint32": (1e6, 4.2e9),
    "int64": (-9e15, 9e15), "uint64": (1e15, 1.8e19), "float32": (0.5, 9e4),
    "float64": (-3.0, 5e9),
}  # fmt: skip


@pytest.fixture(params=["numba", "torch"])
def library(request):
    return request.param


@pytest.fixture(scope="module")
def exact():
    engine = engine_for(PHANTOM, 40, "float64", fields=False, library="torch", compute="float64")
    engine.set_flat(np.ones((20, 64)))
    engine.push(np.exp(-PHANTOM.projections(THETA, 31.0)), THETA, SLOTS)
    return engine.reconstruct(PARAMS)


def test_every_type_is_tried():
    assert {np.dtype(name) for name in LEVELS} == set(FRAME_DTYPES)


@pytest.mark.parametrize("dtype", LEVELS)
def test_types(library, dtype, exact):
    if library == "numba" and dtype in ("int8", "int16", "int64", "uint8"):
        pytest.skip("compiling the kernels for each type takes seconds; these are done in torch")
    low, high = LEVELS[dtype]
    dark, flat = np.full((20, 64), low), np.full((20, 64), high)
    engine = engine_for(PHANTOM, 40, dtype, fields=False, library=library)
    engine.set_dark(dark)
    engine.set_flat(flat)
    engine.push(PHANTOM.raw(THETA, 31.0, dtype, dark, flat), THETA, SLOTS)
    coarse = 0.1 if dtype.endswith("int8") else 1e-3  # 8 bits are coarse
    assert worst(engine.reconstruct(PARAMS), exact) < coarse
    assert engine.bad_pixels == 0


def test_logarithm():
    raw = np.geomspace(1e-8, 1e8, 5000).astype(np.float32)[None]
    zero, one = np.zeros_like(raw), np.ones_like(raw)
    out = np.empty_like(raw)
    assert log_transmission(raw, 0, zero, one, 0, 1, 0, 5000, 1e-6, 1e6, out) == 0
    expected = np.log(np.clip(raw.astype(float), 1e-6, 1e6))
    np.testing.assert_allclose(out, expected, atol=2e-6)
    near_one = np.linspace(0.999, 1.001, 5000, dtype=np.float32)[None]
    log_transmission(near_one, 0, zero, one, 0, 1, 0, 5000, 1e-6, 1e6, out)
    np.testing.assert_allclose(out, np.log(near_one.astype(float)), atol=2e-10, rtol=2e-6)


def spoilt_fields():
    """Fields with every kind of unusable pixel, and how many there are."""
    dark, flat = PHANTOM.dark(), PHANTOM.flat()
    flat[3, 10] = np.nan
    dark[3, 11] = np.inf
    flat[3, 12] = dark[3, 12]  # dead
    dark[7, 0] = 65535.0  # hot, at the edge
    flat[7, 1] = 65535.0 - 65535.0
    flat[8, 63] = -np.inf
    flat[9, 30] = dark[9, 30] + 0.5  # as good as dead
    dark[12, :] = np.nan  # a whole row
    return dark, flat, 7 + 64


def test_pixels_without_usable_fields_are_replaced_and_counted(library):
    engine = engine_for(PHANTOM, 40, fields=False, library=library)
    dark, flat, n_bad = spoilt_fields()
    engine.set_dark(dark)
    engine.set_flat(flat)
    raw = PHANTOM.raw(THETA, 31.0)
    raw[:, 3, 12] = 0
    raw[:, 7, 0] = 65535
    engine.push(raw, THETA, SLOTS)
    good = engine_for(PHANTOM, 40, library=library)
    good.push(PHANTOM.raw(THETA, 31.0), THETA, SLOTS)
    for row in (3, 7, 8, 9):
        params = middle(PHANTOM, center=31.0, ortho_z=row)
        spoilt, clean = engine.reconstruct(params), good.reconstruct(params)
        for array in (spoilt.z, spoilt.y, spoilt.x):
            assert np.isfinite(array).all()
        assert np.abs(spoilt.z - clean.z).mean() < 0.02 * np.abs(clean.z).max()
    assert engine.bad_pixels == n_bad
    empty_row = engine.reconstruct(middle(PHANTOM, center=31.0, ortho_z=12)).z
    assert np.abs(empty_row).max() < 1e-6 * np.abs(spoilt.z).max()  # rounding of other rows
    engine.set_dark(PHANTOM.dark())
    engine.set_flat(PHANTOM.flat())
    engine.reconstruct(PARAMS)
    assert engine.bad_pixels == 0


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_raw_values_that_are_no_numbers_are_replaced_and_counted(library, dtype):
    raw = PHANTOM.raw(THETA, 31.0, dtype)
    clean = engine_for(PHANTOM, 40, dtype, library=library)
    clean.push(raw, THETA, SLOTS)
    expected = clean.reconstruct(PARAMS)
    assert clean.bad_pixels == 0
    raw = raw.copy()
    raw[:, 10, 20:22] = np.nan
    raw[:, 10, 63] = np.inf
    raw[:, 0, 0] = -np.inf
    raw[:, 12, 5] = np.nan
    engine = engine_for(PHANTOM, 40, dtype, library=library)
    flat = PHANTOM.flat()
    flat[12, 5] = np.nan  # this pixel counts once
    engine.set_flat(flat)
    engine.push(raw, THETA, SLOTS)
    shown = engine.reconstruct(PARAMS)
    assert engine.bad_pixels == 5
    for got, want in zip((shown.z, shown.y, shown.x), (expected.z, expected.y, expected.x),
                         strict=True):  # fmt: skip
        assert np.isfinite(got).all()
        assert np.abs(got - want).max() < 0.2 * np.abs(want).max()
    engine.push(PHANTOM.raw(THETA[:1], 31.0, dtype), THETA[:1], SLOTS[:1])
    assert engine.bad_pixels == 1


def test_a_frame_without_any_number_is_finite(library):
    engine = engine_for(PHANTOM, 40, "float32", library=library)
    raw = PHANTOM.raw(THETA, 31.0, "float32")
    raw[3] = np.nan
    raw[4, :, ::2] = np.inf
    raw[5] = -1e38
    raw[6] = 3e38
    engine.push(raw, THETA, SLOTS)
    engine.reconstruct(PARAMS)
    slices = engine.reconstruct(middle(PHANTOM, center=31.0, filter_type="Ramp"))
    for array in (slices.z, slices.y, slices.x):
        assert np.isfinite(array).all()


def test_opaque_pixels_are_clamped(library):
    engine = engine_for(PHANTOM, 40, fields=False, library=library)
    engine.set_dark(np.full((20, 64), 1000.0))
    engine.set_flat(np.full((20, 64), 2000.0))
    raw = np.full((40, 20, 64), 2000, np.uint16)
    raw[:, :, 20:40] = 400  # below the dark field
    engine.push(raw, THETA, SLOTS)
    slices = engine.reconstruct(middle(PHANTOM, center=29.5, filter_type="Ramp"))
    limit = -np.log(TRANSMISSION_FLOOR)
    assert np.isfinite(slices.z).all()
    assert 0.5 * limit / 20 < slices.z[32, 32] < 2 * limit / 20
    assert engine.bad_pixels == 0


def test_bad_fields_without_any_usable_pixel_are_finite(library):
    engine = engine_for(PHANTOM, 40, fields=False, library=library)
    engine.set_flat(np.zeros((20, 64)))
    engine.push(PHANTOM.raw(THETA, 31.0), THETA, SLOTS)
    slices = engine.reconstruct(PARAMS)
    assert not slices.z.any()
    assert engine.bad_pixels == 20 * 64


@pytest.mark.parametrize("size", [2, 3, 4])
@pytest.mark.parametrize("dtype", ["uint16", "int32"])
def test_zingers_equal_scipys_median(size, dtype):
    rng = np.random.default_rng(0)
    pixels = rng.integers(100, 200, (21, 300)).astype(dtype)
    pixels[rng.random(pixels.shape) < 0.02] = 1000
    median = scipy.ndimage.median_filter(pixels.astype(float), size=size)
    expected = np.where(np.abs(pixels - median) > median / 2, median, pixels)
    like = np.empty((1, 1), np.float32 if dtype == "uint16" else np.float64)
    np.testing.assert_array_equal(without_zingers(pixels, like, 4, 21, size), expected[4:])
    tensor = torch.from_numpy(pixels.astype(np.float32))
    np.testing.assert_array_equal(torch_without_zingers(tensor, size).numpy(), expected)
    assert (expected != pixels).sum() > 100


def test_dezinger_takes_zingers_out(library):
    raw = PHANTOM.raw(THETA, 31.0)
    clean = engine_for(PHANTOM, 40, library=library)
    clean.push(raw, THETA, SLOTS)
    rng = np.random.default_rng(1)
    hit = raw.copy()
    hit[rng.random(hit.shape) < 0.002] = 65535
    engine = engine_for(PHANTOM, 40, library=library)
    engine.push(hit, THETA, SLOTS)
    expected = clean.reconstruct(PARAMS)
    without = worst(engine.reconstruct(PARAMS), expected)
    params = middle(PHANTOM, center=31.0, dezinger=3)
    assert worst(engine.reconstruct(params), clean.reconstruct(params)) < 0.5 * without
