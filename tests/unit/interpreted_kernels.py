"""Triton kernels against torch in float64, interpreted on the CPU: see test_recon_triton.py."""
# ruff: noqa: E402

import os

assert os.environ.get("TRITON_INTERPRET") == "1", "run by test_recon_triton.py"

import numpy as np
import pytest
import torch

from tomostream_ioc.recon.backproject import triton_ as backproject
from tomostream_ioc.recon.backproject.torch_ import TorchBackProjector
from tomostream_ioc.recon.backproject.triton_ import Tiles, TritonBackProjector, fill_numbers
from tomostream_ioc.recon.chain.torch_ import TorchFilterChain
from tomostream_ioc.recon.chain.triton_ import ChainSizes, TritonFilterChain
from tomostream_ioc.recon.geometry import (
    ScanGeometry,
    Views,
    x_slice_line,
    y_slice_line,
    z_slice_rows,
)
from tomostream_ioc.recon.gpu import project
from tomostream_ioc.recon.preprocess import Fields

#: small tiles, so that small slices have several, and some that are not full
TILES = Tiles(z=(8, 16, 1), vertical=(8, 16, 1), tilted=(8, 16, 1), line=(64, 1))
SIZES = ChainSizes(frames=2, row=(16, 1), store=(4, 8, 1), product=(4, 32, 1))
#: detector rows x columns: odd, not powers of two, more than one tile, a single row
SHAPES = [(12, 25), (1, 16), (17, 22)]
THETA = np.array([0.0, 0.4, 0.78, 0.79, 1.2, np.pi / 2, 2.0, 2.9, 3.5, 4.7, 6.1])
WEIGHTS = np.array([1.0, -1.0, 0.3, 1.7, 1.0, 2.0, 1.0, -0.5, 1.0, 1.0, 1.0])


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def projectors(n_rows, n):
    """Triton's projector, and torch's in float64, over the same ring."""
    geometry = ScanGeometry(n_angles=16, n_rows=n_rows, n_cols=n)
    rng = np.random.default_rng(n)
    ring = torch.from_numpy(rng.standard_normal((18, n, 32)).astype(np.float16))
    ring[..., n_rows:] = float("nan")  # what is beside the rows must not matter
    ring[17] = float("nan")
    ring = ring[..., :n_rows]
    return (
        geometry,
        TritonBackProjector(geometry, ring, TILES),
        TorchBackProjector(geometry, ring.contiguous(), torch.float64),
    )


def views():
    places = np.array([3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 16])
    return Views.at(places, THETA, WEIGHTS)


def assert_close(got, expected, tolerance=1e-6):
    got, expected = np.asarray(got), np.asarray(expected)
    assert np.isfinite(got).all()
    assert np.abs(got - expected).max() < tolerance * np.abs(expected).max()


@pytest.mark.parametrize(("n_rows", "n"), SHAPES)
@pytest.mark.parametrize("center", [11.5, 7.2371])
def test_z_slice(n_rows, n, center):
    _, triton, torch_ = projectors(n_rows, n)
    row = 2 * n_rows // 3
    got, expected = triton.zeros(n, n), torch_.zeros(n, n)
    for part in (slice(0, 7), slice(7, 11)):
        triton.add_z(got, views()[part], row, center)
    torch_.add_z(expected, views(), row, center)
    assert_close(got, expected)


@pytest.mark.parametrize(("n_rows", "n"), SHAPES)
@pytest.mark.parametrize("tilt_deg", [0.0, 17.0])
def test_vertical_slices(n_rows, n, tilt_deg):
    geometry, triton, torch_ = projectors(n_rows, n)
    for line in (y_slice_line(geometry, 3, tilt_deg), x_slice_line(geometry, n - 5, tilt_deg)):
        got, expected = triton.zeros(n, n_rows), torch_.zeros(n, n_rows)
        triton.add_vertical(got, views(), line, 0.46 * n)
        torch_.add_vertical(expected, views(), line, 0.46 * n)
        assert_close(got, expected)


@pytest.mark.parametrize(("n_rows", "n"), SHAPES)
def test_tilted_z_slice(n_rows, n):
    geometry, triton, torch_ = projectors(n_rows, n)
    rows = z_slice_rows(geometry, n_rows // 2, 0.0 if n_rows == 1 else 21.0)
    got, expected = triton.zeros(n, n), torch_.zeros(n, n)
    triton.add_tilted_z(got, views(), rows, 0.52 * n)
    torch_.add_tilted_z(expected, views(), rows, 0.52 * n)
    assert_close(got, expected)


def test_positions_are_exact_at_full_size():
    """A ramp along u shows where it is read: wide detector, far from the axis, real tile sizes."""
    n = 2448
    geometry = ScanGeometry(n_angles=4, n_rows=1, n_cols=n)
    ring = torch.zeros(1, n, 16, dtype=torch.float16)[..., :1]
    ring[0, :, 0] = torch.arange(n) % 2  # a saw: a position is read to 1e-4 everywhere
    triton = TritonBackProjector(geometry, ring, Tiles(vertical=(64, 16, 1)))
    torch_ = TorchBackProjector(geometry, ring.contiguous(), torch.float64)
    one = Views.at(np.zeros(1, np.int64), np.array([0.6543]))
    line = y_slice_line(geometry, 1100, 11.0)
    got, expected = triton.zeros(n, 1), torch_.zeros(n, 1)
    triton.add_vertical(got, one, line, 1223.3)
    torch_.add_vertical(expected, one, line, 1223.3)
    assert np.abs(np.asarray(got - expected)).max() < 2e-5


def test_views_half_a_turn_apart_share_a_line():
    theta = np.array([0.3, 1.9, 0.3 + np.pi, 2.5, 1.9 + 5 * np.pi, 0.3 + 2 * np.pi])
    numbers = np.full(project.N_NUMBERS, np.nan)
    n_lines = fill_numbers(numbers, Views.at(np.arange(6), theta, 1.0), 5.0)
    assert n_lines == 8  # two along x and one along y, each filled up to four
    assert numbers[:4].tolist() == [5.0, 8.0, 4.0, 8.0]
    firsts = numbers[project.FIRST_VIEWS :][: n_lines + 1]
    assert np.diff(firsts).tolist() == [1, 3, 0, 0, 2, 0, 0, 0]
    n, n_rows = 25, 12
    _, triton, torch_ = projectors(n_rows, n)
    turns = Views.at(np.arange(6), theta, np.array([1.0, -1.0, -2.0, 1.0, 1.0, 1.0]))
    got, expected = triton.zeros(n, n), torch_.zeros(n, n)
    triton.add_z(got, turns, 5, 11.3)
    torch_.add_z(expected, turns, 5, 11.3)
    assert_close(got, expected)


def test_more_views_than_a_batch_has_room_for(monkeypatch):
    n, n_rows = 16, 1
    _, triton, torch_ = projectors(n_rows, n)
    monkeypatch.setattr(backproject, "MOST_VIEWS", 4)
    got, expected = triton.zeros(n, n), torch_.zeros(n, n)
    triton.add_z(got, views(), 0, 7.5)
    torch_.add_z(expected, views(), 0, 7.5)
    assert_close(got, expected)
    triton.add_z(got, views()[:0], 0, 7.5)
    assert_close(got, expected)


def test_the_same_views_are_sent_once(monkeypatch):
    geometry, triton, _ = projectors(12, 25)
    sent = []
    send = triton._numbers.send
    monkeypatch.setattr(triton._numbers, "send", lambda: (sent.append(1), send()))
    few = views()[:2]
    triton.add_z(triton.zeros(25, 25), few, 5, 12.0)
    triton.add_vertical(triton.zeros(25, 12), few, y_slice_line(geometry, 3, 0.0), 12.0)
    assert len(sent) == 1
    triton.add_z(triton.zeros(25, 25), few, 5, 12.5)
    triton.add_z(triton.zeros(25, 25), views()[:2], 5, 12.5)
    assert len(sent) == 3


#: dark and flat level by type, as bits that a signed reading would spoil
LEVELS = {
    "uint8": (5.0, 250.0), "uint16": (500.0, 65000.0), "int16": (-30000.0, 32000.0),
    "uint32": (1e6, 4.2e9), "uint64": (1e15, 1.8e19), "float32": (0.5, 9e4), "float64": (-3.0, 5e9),
}  # fmt: skip


def chains(dtype, n_rows, n, spoil=False):
    """Triton's chain, and torch's in float64, over the same raw frames; their rings; the frames."""
    low, high = LEVELS[dtype]
    rng = np.random.default_rng(n)
    frames = low + (high - low) * rng.uniform(0.05, 1.0, (5, n_rows, n))
    frames[rng.random(frames.shape) < 0.03] = high
    frames = frames.astype(dtype)
    geometry = ScanGeometry(n_angles=5, n_rows=n_rows, n_cols=n)
    wide = np.dtype(dtype).itemsize > 2 and dtype != "float32"
    fields = Fields(geometry, np.dtype("float64" if wide else "float32"))
    dark, flat = np.full((n_rows, n), low), high - 0.1 * (high - low) * rng.random((n_rows, n))
    if spoil:
        flat[3, 4:7] = np.nan
        flat[3, 9] = low
        flat[5, 0], flat[5, n - 1] = -np.inf, low
        flat[6] = np.nan
        if np.dtype(dtype).kind == "f":
            frames[:, 8, 3:5], frames[4, 9, 2], frames[:, 3, 5] = np.nan, np.inf, np.nan
    fields.set_dark(dark)
    fields.set_flat(flat)
    signed = {"uint16": np.int16, "uint32": np.int32, "uint64": np.int64}.get(dtype, dtype)
    raw = torch.zeros(frames.shape, dtype=torch.from_numpy(np.empty(0, signed)).dtype)
    ring = torch.full((6, n, 32), 7.0, dtype=torch.float16)[..., :n_rows]
    exact = torch.zeros(6, n, n_rows, dtype=torch.float64)
    triton = TritonFilterChain(geometry, raw, ring, np.dtype(dtype), SIZES)
    torch_ = TorchFilterChain(geometry, raw, exact, np.dtype(dtype), torch.float64)
    for chain in (triton, torch_):
        chain.set_fields(fields.normalisation())
        chain.set_filter("Parzen")
        chain.store_raw(frames, np.arange(5))
        chain.taken()
    return triton, torch_, ring, exact


def assert_filtered(ring, exact, tolerance=5e-4):
    """Equal to the rounding of float16."""
    got, expected = ring.double().numpy(), exact.numpy()
    assert np.isfinite(got).all()
    assert np.abs(got - expected).max() < tolerance * np.abs(expected).max()
    assert np.sqrt(np.mean((got - expected) ** 2)) < 1e-4 * np.abs(expected).max()


SLOTS, PLACES = np.array([4, 0, 2]), np.array([1, 5, 0])


# a type changes how a pixel is read and nothing behind it: one of them has more rows than a tile
@pytest.mark.parametrize(
    ("dtype", "n_rows", "n"),
    [("uint16", 12, 25), *((each, 3, 18) for each in LEVELS if each != "uint16")],
)
def test_filter_of_every_size_of_pixels(dtype, n_rows, n):
    triton, torch_, ring, exact = chains(dtype, n_rows, n)
    assert triton.filter(SLOTS, PLACES) == torch_.filter(SLOTS, PLACES) == 0
    assert_filtered(ring[PLACES], exact[PLACES])
    assert (ring[[2, 3, 4]] == 7.0).all()


@pytest.mark.parametrize(("n_rows", "n"), SHAPES)
@pytest.mark.parametrize("filter_type", ["Ramp", "Shepp-logan"])
def test_filter_of_odd_sizes(n_rows, n, filter_type):
    triton, torch_, ring, exact = chains("uint16", n_rows, n)
    for chain in (triton, torch_):
        chain.set_filter(filter_type)
        chain.filter(SLOTS, PLACES)
    assert_filtered(ring[PLACES], exact[PLACES])


@pytest.mark.parametrize("dtype", ["uint16", "float32", "float64"])
def test_bad_pixels_are_bridged_and_counted(dtype):
    triton, torch_, ring, exact = chains(dtype, 12, 25, spoil=True)
    for slots in (SLOTS, SLOTS[::-1]):
        lost = triton.filter(slots, PLACES)
        assert lost == torch_.filter(slots, PLACES)
        if dtype != "uint16":
            assert lost == (3 if slots[-1] == 4 else 2)
        assert_filtered(ring[PLACES], exact[PLACES])


@pytest.mark.parametrize(("dtype", "size"), [("uint16", 2), ("float32", 3)])
def test_dezinger(dtype, size):
    triton, torch_, ring, exact = chains(dtype, 3, 14)
    slot, place = SLOTS[:1], PLACES[:1]
    if dtype == "float32":
        triton._raw[slot[0], 1, 4:6] = torch.tensor([float("nan"), float("inf")])
    torch_.filter(slot, place)
    without = exact.clone()
    for chain in (triton, torch_):
        chain.set_dezinger(size)
    assert triton.filter(slot, place) == torch_.filter(slot, place)
    assert_filtered(ring[place], exact[place])
    assert (exact - without).abs().max() > 0.01 * exact.abs().max()


def test_new_fields_replace_the_old_ones():
    triton, torch_, ring, exact = chains("uint16", 12, 25, spoil=True)
    triton.filter(SLOTS, PLACES)
    fields = Fields(ScanGeometry(5, 12, 25), np.dtype("float32"))
    fields.set_flat(np.full((12, 25), 65000.0))
    for chain in (triton, torch_):
        chain.set_fields(fields.normalisation())
        chain.filter(SLOTS, PLACES)
    assert_filtered(ring[PLACES], exact[PLACES])


def test_warming_up_leaves_only_the_ring_changed():
    triton, torch_, ring, exact = chains("uint16", 3, 14)
    fields = Fields(ScanGeometry(5, 3, 14), np.dtype("float32"))
    fields.set_flat(np.full((3, 14), 65000.0))
    triton.warm_up()
    for chain in (triton, torch_):
        chain.set_fields(fields.normalisation())
        chain.set_filter("Parzen")
        chain.filter(SLOTS, PLACES)
    assert_filtered(ring[PLACES], exact[PLACES])
    projectors(3, 14)[1].warm_up()
