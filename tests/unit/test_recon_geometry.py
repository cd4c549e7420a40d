"""Where things are: against a plain back-projection, and by symmetries of the scan."""

import numpy as np
import pytest
from test_recon_phantom import Phantom, engine_for, half_turn, middle, worst

from tomostream_ioc.errors import ParameterError
from tomostream_ioc.model.params import ReconParams
from tomostream_ioc.recon.engine import OrthoEngine
from tomostream_ioc.recon.filters import fft_length, response
from tomostream_ioc.recon.geometry import ScanGeometry, Views, x_slice_line, y_slice_line


@pytest.fixture(params=["numba", "torch"])
def library(request):
    return request.param


def plain(p, theta_deg, params, n, n_rows):
    """Filtered back-projection, pixel by pixel as RECON.md writes it, linear in u and row."""
    n_fft = fft_length(n)
    q = np.fft.irfft(np.fft.rfft(p, n_fft) * response(params.filter_type, n_fft), n_fft)[..., :n]
    index = np.arange(n) - float(n // 2)
    rows = np.arange(n_rows, dtype=float)

    def rotated(a, b, angle_deg):
        angle = np.deg2rad(angle_deg)
        return a * np.cos(angle) + b * np.sin(angle), -a * np.sin(angle) + b * np.cos(angle)

    ix, iy = params.ortho_x - n // 2, params.ortho_y - n // 2
    xr, zr = rotated(index, params.ortho_z - n_rows // 2, params.rot_z_deg)
    yx, yy = rotated(index, iy, params.rot_y_deg)
    xx, xy = rotated(ix, index, params.rot_x_deg)
    planes = (
        (xr[None, :], index[:, None], zr[None, :] + n_rows // 2),
        (yx[None, :], yy[None, :], rows[:, None]),
        (xx[None, :], xy[None, :], rows[:, None]),
    )
    slices = []
    for x, y, row in planes:
        total = 0.0
        for frame, t in zip(q, np.deg2rad(theta_deg), strict=True):
            u, v = np.broadcast_arrays(x * np.cos(t) - y * np.sin(t) + params.center, row)
            s = np.clip(np.floor(u).astype(int), 0, n - 2)
            z = np.clip(np.floor(v).astype(int), 0, n_rows - 2)
            w, f = u - s, v - z
            value = (1 - f) * ((1 - w) * frame[z, s] + w * frame[z, s + 1])
            value += f * ((1 - w) * frame[z + 1, s] + w * frame[z + 1, s + 1])
            total = total + value * ((u >= 0) & (u <= n - 1) & (v >= 0) & (v <= n_rows - 1))
        slices.append(total * np.pi / len(theta_deg))
    return slices


@pytest.mark.parametrize(("n", "n_rows"), [(64, 33), (45, 70)])
@pytest.mark.parametrize(
    "tilts", [{}, {"rot_x_deg": 25.0, "rot_y_deg": -40.0}, {"rot_z_deg": 15.0}]
)
def test_slices_equal_plain_back_projection(library, n, n_rows, tilts):
    phantom = Phantom(n, n_rows)
    theta = half_turn(90, start_deg=-17.0)
    engine = engine_for(phantom, 90, "float64", library=library)
    engine.push(phantom.raw(theta, 0.45 * n, "float64"), theta, np.arange(90))
    params = ReconParams(0.45 * n, n // 2 + 6, n // 2 - 4, n_rows // 2 + 3, **tilts)
    slices = engine.reconstruct(params)
    expected = plain(phantom.projections(theta, 0.45 * n), theta, params, n, n_rows)
    scale = np.abs(expected[0]).max()
    np.testing.assert_allclose(slices.y, expected[1], atol=2e-4 * scale)
    np.testing.assert_allclose(slices.x, expected[2], atol=2e-4 * scale)
    if tilts.get("rot_z_deg"):
        np.testing.assert_allclose(slices.z, expected[0], atol=2e-4 * scale)
    else:  # another interpolation, of the same order
        assert np.abs(slices.z - expected[0]).max() < 0.05 * scale
        assert np.sqrt(np.mean((slices.z - expected[0]) ** 2)) < 0.01 * scale


@pytest.mark.parametrize(("n", "n_rows"), [(64, 20), (101, 33), (50, 131)])
@pytest.mark.parametrize("center_at", [0.5, 0.31])
@pytest.mark.parametrize("tilt_deg", [0.0, 12.5])
def test_numba_equals_torch_in_float64(n, n_rows, center_at, tilt_deg):
    phantom = Phantom(n, n_rows)
    theta = half_turn(181, start_deg=3.0)
    raw = phantom.raw(theta, center_at * n)
    params = ReconParams(
        center_at * n, n // 2 + 3, n // 2 - 9, n_rows // 2,
        rot_x_deg=tilt_deg, rot_y_deg=-tilt_deg, rot_z_deg=tilt_deg,
    )  # fmt: skip
    results = []
    for library, compute in (("numba", "float32"), ("torch", "float64")):
        engine = engine_for(phantom, 181, library=library, compute=compute)
        engine.push(raw, theta, np.arange(181))
        results.append(engine.reconstruct(params))
    assert worst(*results) < 1e-4


@pytest.mark.parametrize(("n", "n_rows"), [(1100, 3), (16, 2100)])
def test_slices_larger_than_a_tile(n, n_rows):
    rng = np.random.default_rng(0)
    geometry = ScanGeometry(9, n_rows, n)
    raw = rng.integers(20000, 40000, (9, n_rows, n)).astype("uint16")
    results = []
    for library, compute in (("numba", "float32"), ("torch", "float64")):
        engine = OrthoEngine(geometry, "uint16", "cpu", library=library, compute=compute)
        engine.set_flat(np.full((n_rows, n), 50000.0))
        engine.push(raw, half_turn(9), np.arange(9))
        results.append(engine.reconstruct(ReconParams(n / 2, n // 3, n // 2, n_rows // 2)))
    assert worst(*results) < 3e-4  # few angles: the rounding to float16 does not average out


def test_moving_the_axis_moves_the_slices(library):
    """The same projections, 5 columns further right, with the axis 5 further right."""
    phantom = Phantom(96, 24)
    theta = half_turn(60)
    p = phantom.projections(theta, 45.0)
    results = []
    for shift in (0, 5):
        engine = engine_for(phantom, 60, "float64", fields=False, library=library)
        engine.set_flat(np.ones((24, 96)))
        engine.push(np.exp(-np.roll(p, shift, 2)), theta, np.arange(60))
        results.append(engine.reconstruct(middle(phantom, center=45.0 + shift)))
    index = np.arange(96) - 48
    seen = np.hypot(index[None], index[:, None]) < 40  # by both, at all angles
    a, b = results[0].z, results[1].z
    assert np.abs(a - b)[seen].max() < 1e-3 * a.max()
    a, b = results[0].y[:, np.abs(index) < 40], results[1].y[:, np.abs(index) < 40]
    assert np.abs(a - b).max() < 1e-3 * a.max()


def test_one_column_right_is_one_pixel(library):
    """With the axis kept, an object one column further right at theta = 0 is one pixel in x."""
    n = 65
    engine = engine_for(Phantom(n, 4), 90, "float64", fields=False, library=library)
    engine.set_flat(np.ones((4, n)))
    theta = half_turn(90)
    x, y = 9.0, -14.0
    t = np.deg2rad(theta)
    u = x * np.cos(t) - y * np.sin(t) + 32.0
    p = np.exp(-0.5 * ((np.arange(n) - u[:, None]) / 2.0) ** 2)
    engine.push(np.exp(-np.repeat(p[:, None], 4, 1)), theta, np.arange(90))
    params = ReconParams(32.0, n // 2 + 9, n // 2 - 14, 1, filter_type="Ramp")
    slices = engine.reconstruct(params)
    assert np.unravel_index(slices.z.argmax(), (n, n)) == (n // 2 - 14, n // 2 + 9)
    assert slices.y[1].argmax() == n // 2 + 9
    assert slices.x[1].argmax() == n // 2 - 14


def test_quarter_turn_turns_the_slice(library):
    """Angles that all grow by 90 degrees: u(x, y, t + 90) = u(-y, x, t) to the pixel."""
    phantom = Phantom(81, 12)  # odd: index n//2 is the middle, so a quarter turn maps the grid
    theta = half_turn(64, start_deg=0.3)
    raw = phantom.raw(theta, 40.0)
    results = []
    for turn in (0.0, 90.0):
        engine = engine_for(phantom, 64, library=library)
        engine.push(raw, theta + turn, np.arange(64))
        results.append(engine.reconstruct(middle(phantom, center=40.0)))
    straight, turned = results
    assert np.abs(turned.z - np.rot90(straight.z, 1)).max() < 1e-4 * np.abs(straight.z).max()


def test_one_angular_step_only_relabels_the_frames(library):
    phantom = Phantom(64, 12)
    theta = half_turn(48)
    raw = phantom.raw(theta, 30.0)
    params = middle(phantom, center=30.0)
    results = []
    for roll in (0, 1):
        engine = engine_for(phantom, 48, library=library)
        engine.push(np.roll(raw, roll, 0), np.roll(theta, roll), np.arange(48))
        results.append(engine.reconstruct(params))
    assert worst(*results) < 1e-5


def test_linearity(library):
    n, n_rows, theta = 64, 9, half_turn(40)
    rng = np.random.default_rng(0)
    p = rng.random((2, 40, n_rows, n))
    results = []
    for sinogram in (p[0], p[1], 0.25 * p[0] + 0.5 * p[1]):
        engine = engine_for(Phantom(n, n_rows), 40, "float64", fields=False, library=library)
        engine.set_flat(np.ones((n_rows, n)))
        engine.push(np.exp(-sinogram), theta, np.arange(40))
        results.append(engine.reconstruct(middle(Phantom(n, n_rows))))
    for name in "zyx":
        a, b, both = (getattr(result, name) for result in results)
        assert np.abs(0.25 * a + 0.5 * b - both).max() < 2e-3 * np.abs(both).max()


def test_lines_of_the_vertical_planes():
    geometry = ScanGeometry(4, 5, 8)
    straight = y_slice_line(geometry, 6, 0.0)
    np.testing.assert_array_equal(straight.x, np.arange(8) - 4)
    np.testing.assert_array_equal(straight.y, 2.0)
    turned = x_slice_line(geometry, 6, 90.0)
    np.testing.assert_allclose(turned.x, np.arange(8) - 4.0, atol=1e-12)
    np.testing.assert_allclose(turned.y, -2.0, atol=1e-12)
    views = Views.at(np.array([0]), np.array([np.pi / 2]))
    np.testing.assert_allclose(straight.columns(views, 3.5), np.full((1, 8), -2.0 + 3.5))


@pytest.mark.parametrize(
    "changes",
    [
        {"center": -0.1}, {"center": 64.1}, {"ortho_x": 64}, {"ortho_y": -1}, {"ortho_z": 20},
    ],
)  # fmt: skip
def test_parameters_that_cannot_be_shown_are_refused(changes):
    phantom = Phantom(64, 20)
    engine = engine_for(phantom, 4)
    engine.push(phantom.raw([0.0], 32.0), np.array([0.0]), np.array([0]))
    with pytest.raises(ParameterError, match=r"center|ortho"):
        engine.reconstruct(middle(phantom, **changes))
    engine.reconstruct(middle(phantom))


@pytest.mark.parametrize("sizes", [(0, 4, 4), (4, 0, 4), (4, 4, 1)])
def test_impossible_sizes_are_refused(sizes):
    with pytest.raises(ValueError, match="n_"):
        ScanGeometry(*sizes)
