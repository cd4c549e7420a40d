"""The search for the axis: accuracy, and a confidence that is low whenever the result is wrong."""

from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from test_recon_phantom import Phantom as Volume
from test_recon_phantom import engine_for, half_turn, middle

from tomostream_ioc.errors import CenterError, ParameterError
from tomostream_ioc.model.center import TRUSTED
from tomostream_ioc.recon.center import CenterSearch, HalfTurn, rows_around
from tomostream_ioc.recon.engine import OrthoEngine
from tomostream_ioc.recon.geometry import ScanGeometry
from tomostream_ioc.sim.phantom import Ellipsoid, Phantom, default_phantom

SCAN = Path(__file__).parents[3] / "shared" / "data" / "savu24737_dx.h5"
N, ROWS = 192, 6
THETA = np.arange(160) * 180.0 / 160


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def cylinders(*parts):
    """Elliptical cylinders (x, y, a, b, mu)."""
    return Phantom(ROWS, N, tuple(Ellipsoid(x, y, 0, a, b, np.inf, mu) for x, y, a, b, mu in parts))


def sinograms(phantom, center, theta_deg=THETA, photons=20000, seed=0):
    """Noisy line integrals (n_rows, k, n)."""
    p = np.stack([phantom.projection(np.deg2rad(t), center) for t in theta_deg], 1)
    return noisy(p, photons, seed)


def noisy(p, photons=20000, seed=0):
    counts = np.random.default_rng(seed).poisson(photons * np.exp(-p))
    return -np.log(np.maximum(counts, 1) / photons).astype(np.float32)


def find(sinograms, theta_deg=THETA, prior=N / 2):
    half = HalfTurn.of(np.deg2rad(theta_deg))
    search = CenterSearch.of(half, (rows[half.frames] for rows in sinograms), prior)
    while (found := search.step()) is None:
        pass
    return found


def truncated(seed):
    """Grains in a body more than twice as wide as the detector."""
    rng = np.random.default_rng(seed)
    places, sizes = rng.uniform(-120, 120, (60, 2)), rng.uniform(3, 20, (60, 2))
    grains = np.column_stack((places, sizes, rng.uniform(-0.003, 0.008, 60)))
    return cylinders((8, 5, 175, 160, 0.003), *grains)


def test_axis_is_found_to_a_quarter_of_a_pixel_wherever_it_is():
    phantom = default_phantom(ROWS, N)
    rng = np.random.default_rng(1)
    for seed, center in enumerate(N / 2 + rng.uniform(-0.06, 0.06, 20) * N):
        found = find(sinograms(phantom, center, seed=seed))
        assert abs(found.center - center) < 0.25, center
        assert found.confidence > 0.9, found


@pytest.mark.parametrize("share", [0.25, 0.31, 0.7, 0.75])
def test_axis_far_from_the_middle(share):
    center = share * N + 0.3
    phantom = cylinders((4, 3, 22, 16, 0.01), (-12, 7, 4, 3, 0.03), (9, -13, 3, 5, 0.02))
    found = find(sinograms(phantom, center), prior=N / 2)
    assert abs(found.center - center) < 0.25
    assert found.confidence > 0.9


@pytest.mark.parametrize(
    "disk", [(0, 0, 45, 45, 0.01), (50, -22, 6, 6, 0.04)], ids=["about the axis", "off the axis"]
)
def test_a_disk_is_enough(disk):
    found = find(sinograms(cylinders(disk), 91.37))
    assert abs(found.center - 91.37) < 0.25
    assert found.trusted


def test_slow_scan_of_few_photons_and_weak_contrast():
    found = find(sinograms(default_phantom(ROWS, N), 99.4, photons=1000))
    assert abs(found.center - 99.4) < 0.25
    assert found.trusted


@pytest.mark.parametrize("seed", range(3))
def test_body_wider_than_the_field_of_view(seed):
    found = find(sinograms(truncated(seed), 100.6, seed=seed))
    assert abs(found.center - 100.6) < 0.25
    assert found.trusted


@pytest.mark.parametrize("seed", range(6))
def test_wide_body_about_an_axis_far_from_the_middle_is_right_or_not_trusted(seed):
    found = find(sinograms(truncated(seed), 130.2, seed=seed))
    assert abs(found.center - 130.2) < 1.0 or not found.trusted


@pytest.mark.parametrize("seed", range(4))
def test_nothing_to_see_is_not_trusted(seed):
    beam = noisy(np.zeros((ROWS, len(THETA), N)), seed=seed)
    pattern = np.random.default_rng(seed).normal(0, 0.003, (ROWS, 1, N)).cumsum(2)
    for rows in (beam, beam + pattern, sinograms(cylinders((5, 3, 175, 160, 0.003)), 97.0)):
        found = find(rows.astype(np.float32))
        assert found.confidence < 0.3, found
        assert found.reason
    constant = find(np.zeros_like(beam), prior=101.2)
    assert constant.confidence == 0.0
    assert abs(constant.center - 101.2) < 3


def test_few_angles_for_the_width_are_not_trusted():
    few = np.arange(0.0, 180.0, 9.0)
    found = find(sinograms(default_phantom(ROWS, N), 99.0, few), few)
    assert not found.trusted
    assert found.reason == "the angles are few"


def test_one_row_that_matches_by_chance_in_a_narrow_strip():
    phantom = default_phantom(160, N)
    region = (50, 51, 0, N)
    rows = [phantom.projection(np.deg2rad(t), 99.4, region=region) for t in THETA]
    found = find(noisy(np.stack(rows, 1)))
    assert abs(found.center - 99.4) < 0.25
    assert found.confidence > 0.9


@pytest.mark.parametrize("rings", [0.02, 0.1])
def test_rings_do_not_matter(rings):
    rows = sinograms(default_phantom(ROWS, N), 99.4)
    rows += rings * np.random.default_rng(3).normal(size=(ROWS, 1, N)).astype(np.float32)
    found = find(rows)
    assert abs(found.center - 99.4) < 0.25
    assert found.trusted


@pytest.mark.parametrize(
    "theta_deg",
    [
        np.arange(400, 580) * 1.0,
        np.roll(np.arange(400, 580) * 1.0, 70),
        -np.arange(180) * 1.0,
        np.arange(257) * 0.7,
        np.arange(91) * 2.0,
        # a frame that did not come leaves that of the half turn before
        np.where(np.arange(180) % 29 == 7, 0.0, 180.0) + np.arange(180),
        np.arange(180) + 0.3 * np.sin(np.arange(180)),
    ],
    ids=["later turn", "slots", "other way round", "step 0.7", "both ends", "missed", "uneven"],
)
def test_angles_as_they_come(theta_deg):
    found = find(sinograms(default_phantom(ROWS, N), 98.8, theta_deg), theta_deg)
    assert abs(found.center - 98.8) < 0.25
    assert found.trusted


@pytest.mark.parametrize(
    ("theta_deg", "why"),
    [
        (np.arange(12) * 15.0, "12 angles are too few"),
        (np.arange(120.0), "120 angles over 120 of 180 degrees are too few"),
        (np.r_[0:80, 120:180].astype(float), "over 140 of 180"),
        # the first third of a half turn is opposite to what is left of another scan
        (np.r_[0:60, 240:300].astype(float), "120 angles over 120 of 180"),
    ],
)
def test_too_few_angles_are_refused_with_the_reason(theta_deg, why):
    with pytest.raises(CenterError, match=why):
        HalfTurn.of(np.deg2rad(theta_deg))


def test_fewer_columns_than_can_be_compared_are_refused():
    with pytest.raises(CenterError, match="8 columns are too few"):
        find(np.zeros((2, 160, 8), np.float32))


def test_of_two_axes_that_would_do_the_nearer_to_center_is_taken():
    tries = np.arange(60, 140, 0.5)
    evidence = 100 * np.exp(-0.5 * ((tries - 90) / 2) ** 2)
    evidence += 98 * np.exp(-0.5 * ((tries - 110) / 2) ** 2)
    for prior, expected in ((85.0, 90.0), (113.0, 110.0)):
        found, lead = CenterSearch._choose(tries, evidence, prior)
        assert tries[found] == expected
        assert lead < 0.05
    found, _ = CenterSearch._choose(tries, np.where(tries > 100, 0.5, 1.0) * evidence, 113.0)
    assert tries[found] == 90.0


def test_rows_are_around_ortho_z_and_inside():
    assert rows_around(100, 135) == list(range(94, 106))
    assert rows_around(0, 3) == [0, 1, 2]
    assert rows_around(1024, 2048)[:2] == [928, 944]


VOLUME = Volume(96, 24)
TURN = half_turn(120)


@pytest.mark.parametrize("library", ["numba", "torch"])
def test_engine_finds_the_axis_of_what_is_in_its_ring(library):
    engine = engine_for(VOLUME, 120, library=library)
    engine.push(VOLUME.raw(TURN, 45.3), TURN, np.arange(120))
    params = middle(VOLUME, center=52.0, dezinger=3)
    before = engine.reconstruct(params)
    assert abs(engine.find_center(params).center - 45.3) < 0.25
    # it goes on as if nothing had happened, and another axis is found when the ring has it
    assert np.array_equal(engine.reconstruct(params).z, before.z)
    engine.push(VOLUME.raw(TURN + 180, 51.8), TURN + 180, np.arange(120))
    assert abs(engine.find_center(params).center - 51.8) < 0.25


@pytest.mark.parametrize("library", ["numba", "torch"])
@pytest.mark.parametrize("shown", [True, False])
def test_a_search_filters_nothing_and_phase_retrieval_has_no_part_in_it(library, shown):
    engine = engine_for(VOLUME, 120, library=library)
    engine.push(VOLUME.raw(TURN, 45.3), TURN, np.arange(120))
    plain = middle(VOLUME, center=52.0)
    before = engine.reconstruct(plain) if shown else None
    blurred = replace(plain, energy_kev=20.0, distance_mm=300.0, alpha=1e-3, pixel_size_um=2.0)
    too_much = replace(blurred, alpha=1e-9)  # slices would be refused
    with pytest.raises(ParameterError, match="phase retrieval would average"):
        engine.reconstruct(too_much)
    # after which nothing is filtered, with whatever parameters
    real, filtered = engine._chain.filter, []
    engine._chain.filter = lambda slots, places: filtered.append(slots) or real(slots, places)
    expected = engine.find_center(plain)
    assert abs(expected.center - 45.3) < 0.25
    for params in (blurred, too_much, replace(plain, filter_type="Ramp")):
        assert engine.find_center(params) == expected
    assert filtered == []
    if before is not None:
        assert np.array_equal(engine.reconstruct(plain).z, before.z)
        assert filtered == []


@pytest.mark.parametrize("library", ["numba", "torch"])
def test_a_search_has_the_newest_fields_and_the_slices_have_them_afterwards(library):
    flat = VOLUME.flat()
    flat[:, 20:30] *= 0.5
    raw = VOLUME.raw(TURN, 45.3, flat=flat)
    expected = engine_for(VOLUME, 120, library=library)
    engine = engine_for(VOLUME, 120, library=library)
    engine.push(raw, TURN, np.arange(120))
    engine.reconstruct(middle(VOLUME))
    for each in (engine, expected):
        each.set_flat(flat)
    expected.push(raw, TURN, np.arange(120))
    assert engine.find_center(middle(VOLUME)) == expected.find_center(middle(VOLUME))
    # a frame that comes between them is no reason to take the old ones for up to date
    engine.push(raw[:1], TURN[:1], np.arange(1))
    shown, fresh = engine.reconstruct(middle(VOLUME)), expected.reconstruct(middle(VOLUME))
    assert np.abs(shown.z - fresh.z).max() < 1e-5 * np.abs(fresh.z).max()


@pytest.mark.parametrize("library", ["numba", "torch"])
@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_line_integrals_of_a_row(library, dtype):
    volume, theta = Volume(96, 24), half_turn(30)
    flat = volume.flat()
    flat[:, 40:42] = 0.0  # dead columns
    raw = volume.raw(theta, 45.3, dtype, flat=volume.flat())
    if dtype == "float32":
        raw[3, 12, 60] = np.nan
    engine = OrthoEngine(ScanGeometry(30, 24, 96), dtype, "cpu", library=library)
    engine.set_dark(volume.dark())
    engine.set_flat(flat)
    engine.push(raw, theta, np.arange(30))
    engine.reconstruct(middle(volume))
    found = engine._chain.line_integrals(np.array([3, 7, 29]), 12, 0)
    p = volume.projections(theta, 45.3)[[3, 7, 29], 12]
    assert np.abs(found - p).max() < 0.02
    zinger = raw.copy()
    zinger[3, 12, 50] *= 2
    engine.push(zinger, theta, np.arange(30))
    cleaned = engine._chain.line_integrals(np.array([3]), 12, 3)
    assert np.abs(cleaned[0] - found[0])[40:60].max() < 0.15


def test_a_heartbeat_can_end_the_search():
    class StopError(Exception):
        pass

    beats = []

    def beat():
        beats.append(1)
        if stop:
            raise StopError

    stop = False
    engine = engine_for(VOLUME, 120, heartbeat=beat)
    engine.push(VOLUME.raw(TURN, 45.3), TURN, np.arange(120))
    engine.reconstruct(middle(VOLUME))
    beats.clear()
    engine.find_center(middle(VOLUME))
    assert len(beats) > 50
    stop = True
    with pytest.raises(StopError):
        engine.find_center(middle(VOLUME))


@pytest.mark.skipif(not SCAN.is_file(), reason="needs ../shared/data")
@pytest.mark.parametrize("n_angles", [90, 91])
def test_real_scan(n_angles):
    with h5py.File(SCAN) as file:
        raw, theta, dark, flat = (
            np.array(file[f"exchange/{name}"])
            for name in ("data", "theta", "data_dark", "data_white")
        )
    engine = OrthoEngine(ScanGeometry(n_angles, *raw.shape[1:]), "uint16", "cpu")
    engine.set_dark(dark.mean(0))
    engine.set_flat(flat.mean(0))
    engine.push(raw[:n_angles], theta[:n_angles], np.arange(n_angles))
    for row in (55, 67, 100):
        params = middle(Volume(160, 135), center=100.0, ortho_z=row)
        found = engine.find_center(params)
        assert abs(found.center - 86.5) < 1.0
        assert found.confidence > TRUSTED
