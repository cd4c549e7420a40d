"""Tilted planes show the object where RECON's geometry says that they cut it."""

from dataclasses import replace

import numpy as np
import pytest
from test_recon_phantom import Phantom, engine_for, half_turn

from tomostream_ioc.model.params import ReconParams

N, N_ROWS, N_ANGLES = 128, 90, 200
CENTER = 66.25
PHANTOM = Phantom(N, N_ROWS)
THETA = half_turn(N_ANGLES, start_deg=-30.0)
RAW = PHANTOM.raw(THETA, CENTER)
#: ix, iy, iz: planes off the middle, two of them through both inner ellipsoids
PLACES = [(64, 64, 45), (80, 51, 52), (49, 79, 30)]


def tilted(a, b, angle_deg):
    angle = np.deg2rad(angle_deg)
    return a * np.cos(angle) + b * np.sin(angle), -a * np.sin(angle) + b * np.cos(angle)


def truth(axis, place, angle_deg):
    """True values on a tilted plane, and which of its points are seen at every angle."""
    along = np.arange(N) - float(N // 2)
    rows = np.arange(N_ROWS, dtype=float)[:, None]
    ix, iy, iz = place
    if axis == "z":  # axes y, x
        x, row = tilted(along, iz - N_ROWS // 2, angle_deg)
        x, y, z = x[None, :], along[:, None], row[None, :] + N_ROWS // 2
    elif axis == "y":  # axes z, x
        x, y = tilted(along, iy - N // 2, angle_deg)
        z = rows
    else:  # axes z, y
        x, y = tilted(ix - N // 2, along, angle_deg)
        z = rows
    x, y, z = np.broadcast_arrays(x, y, z)
    seen = (np.hypot(x, y) < N - 1 - CENTER - 2) & (z >= 0) & (z <= N_ROWS - 1)
    return np.sum([e.values(x, y, z) for e in PHANTOM.parts], 0), seen


@pytest.fixture(scope="module", params=["numba", "torch"])
def engine(request):
    engine = engine_for(PHANTOM, N_ANGLES, library=request.param)
    engine.push(RAW, THETA, np.arange(N_ANGLES))
    yield engine
    engine.release()


@pytest.mark.parametrize("angle_deg", [-45.0, -20.0, -3.0, 8.0, 30.0, 45.0])
@pytest.mark.parametrize("place", PLACES, ids=str)
def test_tilted_planes_show_the_object(engine, angle_deg, place):
    ix, iy, iz = place
    slices = engine.reconstruct(
        ReconParams(
            CENTER, ix, iy, iz, rot_x_deg=angle_deg, rot_y_deg=angle_deg, rot_z_deg=angle_deg,
            filter_type="Shepp-logan",
        )
    )  # fmt: skip
    for axis in "zyx":
        got = getattr(slices, axis)
        true, seen = truth(axis, place, angle_deg)
        assert np.corrcoef(got[seen], true[seen])[0, 1] > 0.985, axis
        # and nowhere better than there: a tilt the other way shows another cut
        other, _ = truth(axis, place, -angle_deg)
        if abs(angle_deg) > 5:
            worse = np.corrcoef(got[seen], other[seen])[0, 1]
            assert worse < np.corrcoef(got[seen], true[seen])[0, 1] - 0.002, axis
        for value in np.unique(true.round(9))[1:]:
            flat = (np.abs(true - value) < 1e-8) & seen
            for shift in (-3, 3):  # at least 3 pixels from any edge
                for along in (0, 1):
                    flat &= np.abs(np.roll(true, shift, along) - value) < 1e-8
            if flat.sum() > 60:
                assert got[flat].mean() == pytest.approx(value, rel=0.015), axis


def test_tilted_z_slice_is_empty_outside_the_detector(engine):
    """Rows above and below the detector were not seen: 0, not the last row again."""
    params = ReconParams(CENTER, 64, 64, 80, rot_z_deg=45.0)
    z = engine.reconstruct(params).z
    _, row = tilted(np.arange(N) - float(N // 2), 80 - N_ROWS // 2, 45.0)
    outside = (row + N_ROWS // 2 < 0) | (row + N_ROWS // 2 > N_ROWS - 1)
    assert 20 < outside.sum() < 100
    assert not z[:, outside].any()
    assert (np.abs(z[:, ~outside]).max(0) > 0).all()


@pytest.mark.parametrize("name", ["rot_x_deg", "rot_y_deg", "rot_z_deg"])
def test_tilt_changes_only_its_own_slice(engine, name):
    params = ReconParams(CENTER, 80, 51, 52)
    straight = engine.reconstruct(params)
    turned = engine.reconstruct(replace(params, **{name: 17.0}))
    for axis in "zyx":
        same = np.array_equal(getattr(straight, axis), getattr(turned, axis))
        assert same == (axis != name[4])
