"""What must not change, or change in a known way: shifts, turns, mirrors, scale of the object."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from test_recon_phantom import half_turn, worst

from tomostream_ioc.model.params import ReconParams
from tomostream_ioc.model.slices import Slices
from tomostream_ioc.recon.engine import OrthoEngine
from tomostream_ioc.recon.geometry import ScanGeometry

#: odd sizes: index n // 2 is the middle, so that mirrors map the grid onto itself
N, N_ROWS, N_ANGLES = 65, 21, 60
MIDDLE, ROW = N // 2, N_ROWS // 2
THETA = half_turn(N_ANGLES)
#: bumps at x, y, z in pixels from the middle, of this width and height: none symmetric to another
BUMPS = [(9.0, -4.0, 2.0, 3.5, 0.06), (-13.0, 6.0, -1.0, 5.0, 0.03), (2.0, 15.0, 1.0, 3.0, 0.05)]


def projections(theta_deg, center=float(MIDDLE), move=(0.0, 0.0, 0.0), turn_deg=0.0):
    """Line integrals (k, n_rows, n) of the bumps, turned about the axis and then moved."""
    t, turn = np.deg2rad(theta_deg)[:, None, None], np.deg2rad(turn_deg)
    u = np.arange(N) - center
    v = (np.arange(N_ROWS) - float(ROW))[:, None]
    p = np.zeros((len(t), N_ROWS, N))
    for x0, y0, z0, width, height in BUMPS:
        # turned so that u at theta is what it was at theta + turn
        x = x0 * np.cos(turn) - y0 * np.sin(turn) + move[0]
        y = x0 * np.sin(turn) + y0 * np.cos(turn) + move[1]
        r2 = (u - x * np.cos(t) + y * np.sin(t)) ** 2 + (v - z0 - move[2]) ** 2
        p += height * np.sqrt(2 * np.pi) * width * np.exp(-r2 / (2 * width**2))
    return p


def slices_of(p, theta_deg, library, **params) -> Slices:
    torch.set_num_threads(1)
    engine = OrthoEngine(ScanGeometry(len(p), N_ROWS, N), "float64", "cpu", library=library)
    engine.set_flat(np.ones((N_ROWS, N)))
    engine.push(np.exp(-p), theta_deg, np.arange(len(p)))
    middle = ReconParams(float(MIDDLE), MIDDLE, MIDDLE, ROW, filter_type="Ramp")
    result = engine.reconstruct(replace(middle, **params))
    engine.release()
    return result


@pytest.fixture(params=["numba", "torch"])
def library(request):
    return request.param


@pytest.mark.parametrize("move", [(5, 0, 0), (0, -7, 0), (4, 3, 2)])
def test_object_moves_slice_moves(library, move):
    """By whole pixels; what remains is interpolation, of bumps three pixels wide."""
    dx, dy, dz = move
    still = slices_of(projections(THETA), THETA, library)
    moved = slices_of(projections(THETA, move=move), THETA, library,
                      ortho_x=MIDDLE + dx, ortho_y=MIDDLE + dy, ortho_z=ROW + dz)  # fmt: skip
    inner = np.hypot(*np.mgrid[-MIDDLE : MIDDLE + 1, -MIDDLE : MIDDLE + 1]) < 22
    expected = np.roll(still.z, (dy, dx), (0, 1))
    assert np.abs(moved.z - expected)[inner].max() < 0.01 * still.z.max()
    rows, columns = slice(4, N_ROWS - 4), slice(10, N - 10)
    for got, was, across in ((moved.y, still.y, dx), (moved.x, still.x, dy)):
        expected = np.roll(was, (dz, across), (0, 1))
        difference = np.abs(got - expected)[rows, columns]
        assert difference.max() < 0.015 * still.z.max()
        assert np.abs(got - was).max() > 0.1 * still.z.max() or not (across or dz)


def test_detector_rows_move_slices_move(library):
    p = projections(THETA)
    still = slices_of(p, THETA, library)
    moved = slices_of(np.roll(p, 3, 1), THETA, library, ortho_z=ROW + 3)
    assert np.abs(moved.z - still.z).max() < 1e-5 * still.z.max()
    for got, was in ((moved.y, still.y), (moved.x, still.x)):
        assert np.abs(got - np.roll(was, 3, 0)).max() < 1e-5 * still.z.max()


@pytest.mark.parametrize("at", [0, 9])
def test_plane_turned_by_one_step_equals_relabelled_frames(library, at):
    """u of the tilted planes is u of the straight ones one step earlier, exactly.

    So frame k + 1 stands for angle k, and the last angle is the first frame seen from behind.
    """
    p = projections(THETA)
    relabelled = {
        1: np.concatenate((p[1:], p[:1, :, ::-1])),
        -1: np.concatenate((p[-1:, :, ::-1], p[:-1])),
    }
    for steps in (1, -1):
        tilt_deg = steps * 180.0 / N_ANGLES
        tilted = slices_of(p, THETA, library, rot_x_deg=tilt_deg, rot_y_deg=tilt_deg,
                           ortho_x=MIDDLE + at, ortho_y=MIDDLE - at)  # fmt: skip
        straight = slices_of(
            relabelled[steps], THETA, library, ortho_x=MIDDLE + at, ortho_y=MIDDLE - at
        )
        assert np.abs(tilted.y - straight.y).max() < 1e-4 * straight.z.max()
        assert np.abs(tilted.x - straight.x).max() < 1e-4 * straight.z.max()


def test_object_turned_by_one_step_equals_relabelled_frames(library):
    """The frames that a turned object gives are those of the object still, one step on."""
    step_deg = 180.0 / N_ANGLES
    p = projections(THETA)
    relabelled = np.concatenate((p[1:], p[:1, :, ::-1]))
    turned = slices_of(projections(THETA, turn_deg=step_deg), THETA, library)
    shown = slices_of(relabelled, THETA, library)
    assert worst(shown, turned) < 1e-5
    assert worst(shown, slices_of(p, THETA, library)) > 0.05


def test_reversed_angles_mirror_the_slice(library):
    """theta -> -theta is y -> -y."""
    p = projections(THETA)
    turned = slices_of(p, THETA, library, ortho_y=MIDDLE + 6, ortho_x=MIDDLE + 3)
    mirrored = slices_of(p, -THETA, library, ortho_y=MIDDLE - 6, ortho_x=MIDDLE + 3)
    scale = turned.z.max()
    assert np.abs(mirrored.z - turned.z[::-1]).max() < 1e-4 * scale
    assert np.abs(mirrored.y - turned.y).max() < 1e-4 * scale
    assert np.abs(mirrored.x - turned.x[:, ::-1]).max() < 1e-4 * scale


@pytest.mark.parametrize("which", [slice(None), slice(0, None, 2), slice(20, 50)])
def test_frame_from_behind_is_the_mirrored_frame(library, which):
    """Columns mirrored about the axis at theta + 180 degrees: the same slices."""
    p, theta = projections(THETA), THETA.copy()
    front = slices_of(p, theta, library)
    p[which], theta[which] = p[which, :, ::-1].copy(), theta[which] + 180.0
    assert worst(slices_of(p, theta, library), front) < 1e-4


def test_mirrored_columns_mirror_the_slice(library):
    """All frames mirrored about the axis with their angles kept: x -> -x and y -> -y."""
    p = projections(THETA)
    straight = slices_of(p, THETA, library)
    mirrored = slices_of(p[..., ::-1], THETA, library)
    assert np.abs(mirrored.z - straight.z[::-1, ::-1]).max() < 1e-4 * straight.z.max()
    assert np.abs(mirrored.y - straight.y[:, ::-1]).max() < 1e-4 * straight.z.max()


def test_linear_in_the_attenuation_to_rounding():
    """With float64 all the way; for the float16 ring see test_recon_geometry."""
    rng = np.random.default_rng(2)
    first, second = rng.random((2, N_ANGLES, N_ROWS, N))
    geometry = ScanGeometry(N_ANGLES, N_ROWS, N)
    results = []
    for p in (first, second, 0.25 * first + 0.5 * second):
        engine = OrthoEngine(geometry, "float64", "cpu", library="torch", compute="float64")
        engine.set_flat(np.ones((N_ROWS, N)))
        engine.push(np.exp(-p), THETA, np.arange(N_ANGLES))
        params = ReconParams(28.4, 20, 40, 7, filter_type="Ramp", rot_x_deg=9.0, rot_z_deg=3.0)
        results.append(engine.reconstruct(params))
    for name in "zyx":
        a, b, both = (getattr(result, name).astype(float) for result in results)
        assert np.abs(0.25 * a + 0.5 * b - both).max() < 5e-7 * np.abs(both).max()
