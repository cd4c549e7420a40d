"""Phase retrieval: against its definition, a propagated wave, and the chains against each other."""

from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest
import torch
from test_recon_phantom import Phantom, engine_for, half_turn, middle, worst

from tomostream_ioc.errors import ParameterError
from tomostream_ioc.model.params import ReconParams
from tomostream_ioc.recon.chain.numba_phase import NumbaPhase
from tomostream_ioc.recon.chain.torch_phase import TorchPhase
from tomostream_ioc.recon.geometry import ScanGeometry
from tomostream_ioc.recon.phase import PhaseFilter, wavelength_m
from tomostream_ioc.recon.preprocess import Normalisation
from tomostream_ioc.recon.workers import Workers

PHASE = {"energy_kev": 20.0, "distance_mm": 50.0, "alpha": 1e-3, "pixel_size_um": 2.0}
OFF = [{name: 0.0} for name in PHASE] + [{"alpha": -1.0}, {"energy_kev": -20.0}]


@pytest.fixture(params=["numba", "torch"])
def library(request):
    return request.param


def phase_filter(n_rows, n_cols, **changes):
    params = replace(ReconParams(center=1.0, ortho_x=0, ortho_y=0, ortho_z=0), **PHASE | changes)
    phase = PhaseFilter.of(params, ScanGeometry(4, n_rows, n_cols))
    assert phase is not None
    return phase


def retrieved(frame, phase, library="float64"):
    """The transmission after phase retrieval, by one of the chains' halves."""
    if library != "numba":
        compute = torch.float64 if library == "float64" else torch.float32
        contrast = torch.from_numpy(frame - 1.0)[None].to(compute)
        return TorchPhase(phase, torch.device("cpu"), compute).retrieved(contrast)[0].numpy()
    none = np.empty(0, np.int64)
    zero, one = np.zeros(frame.shape, np.float32), np.ones(frame.shape, np.float32)
    fields = Normalisation(zero, one, none, none, none, 0)
    workers = Workers(lambda: None, 2)
    stage = NumbaPhase(phase, workers, 16)
    stage.begin(frame.astype(np.float32), fields, (fields.runs_by_row(), none, none), 0)
    for first in range(0, len(frame), 16):
        stage.finish(first, min(first + 16, len(frame)))
    workers.close()
    return stage.retrieved + 1.0


def tomopy(frame, shape, on_its_grid=False):
    """The definition in the units and with the constants of TomoPy, written anew.

    ``on_its_grid``: at its frequencies, which run from -1/2 to 1/2 cycle per pixel inclusive and so
    lie up to half a step beside those of the transform.
    """
    pixel_cm = 1e-4 * PHASE["pixel_size_um"]
    dist_cm = 0.1 * PHASE["distance_mm"]
    wavelength_cm = 2 * np.pi * 6.58211928e-19 * 299792458e2 / PHASE["energy_kev"]
    squares = []
    for n in shape:
        f = np.fft.fftshift(np.linspace(-0.5, 0.5, n)) if on_its_grid else np.fft.fftfreq(n)
        squares.append((f / pixel_cm) ** 2)
    gain = 1 / (wavelength_cm * dist_cm * np.add.outer(*squares) / (4 * np.pi) + PHASE["alpha"])
    before = [(n_fft - n) // 2 for n_fft, n in zip(shape, frame.shape, strict=True)]
    widths = [(b, n_fft - n - b) for b, n_fft, n in zip(before, shape, frame.shape, strict=True)]
    padded = np.pad(frame, widths, mode="edge")
    filtered = np.fft.ifft2(np.fft.fft2(padded) * gain / gain.max()).real
    return filtered[tuple(slice(b, b + n) for b, n in zip(before, frame.shape, strict=True))]


def noise(n_rows, n_cols, seed=0):
    return 0.2 + 0.8 * np.random.default_rng(seed).random((n_rows, n_cols))


def test_wavelength():
    assert wavelength_m(12.39841984) == pytest.approx(1e-10, rel=1e-9)


@pytest.mark.parametrize(("n_rows", "n_cols"), [(48, 80), (33, 101), (1, 64), (30, 2)])
def test_filtered_frame_is_tomopys_definition(n_rows, n_cols):
    frame = noise(n_rows, n_cols)
    phase = phase_filter(n_rows, n_cols)
    expected = tomopy(frame, (phase.rows.n_fft, phase.cols.n_fft))
    np.testing.assert_allclose(retrieved(frame, phase), expected, atol=1e-7)
    for library in ("numba", "float32"):
        np.testing.assert_allclose(retrieved(frame, phase, library), expected, atol=2e-6)
    # with more padding, as TomoPy's powers of two, it is the same
    np.testing.assert_allclose(tomopy(frame, (512, 512)), expected, atol=1e-5)
    # and at its frequencies nearly
    np.testing.assert_allclose(tomopy(frame, (512, 512), True), expected, atol=1e-3)


@pytest.mark.parametrize("library", ["float64", "float32", "numba"])
@pytest.mark.parametrize("alpha", [1.0, 1e-3, 3e-6])
def test_a_constant_frame_stays_as_it_is(library, alpha):
    phase = phase_filter(37, 70, alpha=alpha)
    for value in (1.0, 0.25):
        frame = np.full((37, 70), value)
        np.testing.assert_allclose(retrieved(frame, phase, library), value, rtol=1e-6)


@pytest.mark.parametrize("library", ["float64", "numba"])
@pytest.mark.parametrize("axis", [0, 1])
def test_nothing_comes_round_from_the_opposite_edge(library, axis):
    """What an opaque edge adds at the other one is what the filter has at that distance."""
    phase = phase_filter(140, 150, alpha=1e-3 / 9)
    frame = np.ones((140, 150))
    n = frame.shape[axis]
    np.moveaxis(frame, axis, 0)[-20:] = 0.0
    shown = np.moveaxis(retrieved(frame, phase, library), axis, 0)
    x = np.arange(n)[:, None] - (n - 20.5)  # from the step
    assert n > 20 * phase.length
    smooth = np.where(x < 0, 1 - 0.5 * np.exp(x / phase.length), 0.5 * np.exp(-x / phase.length))
    away = np.abs(x[:, 0]) > 2 * phase.length
    np.testing.assert_allclose(shown[away], np.broadcast_to(smooth, shown.shape)[away], atol=5e-3)
    assert np.abs(shown[: n // 4] - 1.0).max() < 2e-5  # without padding: 0.47


def test_padding_is_enough_and_bounded():
    phase = phase_filter(2048, 2448, pixel_size_um=0.5, alpha=1e-4)
    for axis, n in ((phase.rows, 2048), (phase.cols, 2448)):
        assert 12 * phase.length <= axis.after
        assert 12 * phase.length <= axis.n_fft - n - axis.after
        assert axis.n_fft < 1.05 * (n + 24 * phase.length + 2)
    widest = phase_filter(100, 300, alpha=1e-7)
    assert widest.length > 100
    assert widest.rows.n_fft <= 1.05 * (100 + 2 * 300)
    assert widest.cols.n_fft <= 1.05 * (300 + 2 * 300)


class Homogeneous:
    """A wave of 20 keV behind an object of one material, 50 mm further on, in pixels of 1 um."""

    delta, beta = 4e-7, 4e-10
    distance_m, pixel_m = 0.05, 1e-6
    wavelength_m = 12.398419843e-10 / 20.0
    mu = 4 * np.pi * beta / wavelength_m
    params: ClassVar[dict[str, float]] = {
        "energy_kev": 20.0,
        "distance_mm": 50.0,
        "pixel_size_um": 1.0,
        "alpha": beta / (4 * np.pi**2 * delta),
    }

    @classmethod
    def intensity(cls, thickness_m):
        """Fresnel's propagator on the wave behind the object; (n, m) with empty margins."""
        k = 2 * np.pi / cls.wavelength_m
        wave = np.exp(-(0.5 * cls.mu + 1j * k * cls.delta) * thickness_m)
        f2 = np.add.outer(*(np.fft.fftfreq(n, cls.pixel_m) ** 2 for n in thickness_m.shape))
        there = np.exp(-1j * np.pi * cls.wavelength_m * cls.distance_m * f2)
        return np.abs(np.fft.ifft2(np.fft.fft2(wave) * there)) ** 2


def soft(distance, width=3.0):
    """1 inside (distance < 0), 0 outside, as an edge seen with finite resolution."""
    return 0.5 * (1 - np.tanh(distance / width))


@pytest.mark.parametrize("shape", ["disk", "edge", "sphere"])
def test_thickness_of_a_homogeneous_object_comes_back(shape):
    y, x = np.mgrid[-256:256, -256:256].astype(float)
    if shape == "edge":
        thickness_m = 30e-6 * soft(np.abs(x) - 90)
    elif shape == "disk":
        thickness_m = 30e-6 * soft(np.hypot(x, y) - 60)
    else:
        thickness_m = 2e-6 * np.sqrt(np.clip(80**2 - x**2 - y**2, 0, None))
    frame = Homogeneous.intensity(thickness_m)[100:-100, 56:-56]
    truth = thickness_m[100:-100, 56:-56]
    phase = phase_filter(*frame.shape, **Homogeneous.params)
    # both ways of writing the filter: alpha, and delta / mu of the transport of intensity
    length_m = np.sqrt(Homogeneous.distance_m * Homogeneous.delta / Homogeneous.mu)
    assert phase.length == pytest.approx(length_m / Homogeneous.pixel_m, rel=1e-6)
    found = -np.log(retrieved(frame, phase)) / Homogeneous.mu
    # the transport of intensity is not exact at an edge that is sharp
    assert np.abs(found - truth).max() < (0.06 if shape == "sphere" else 0.01) * truth.max()
    assert np.sqrt(np.mean((found - truth) ** 2)) < 0.003 * truth.max()
    without = -np.log(frame) / Homogeneous.mu
    assert np.abs(without - truth).max() > 2 * truth.max()  # fringes are all there is to see


def test_attenuation_of_a_ball_comes_back_in_the_slices(library):
    y, x = np.mgrid[-256:256, -256:256].astype(float)
    thickness_m = 2e-6 * np.sqrt(np.clip(50**2 - x**2 - y**2, 0, None))
    frame = Homogeneous.intensity(thickness_m)[166:347, 136:377]  # 181 rows, 241 columns
    ball = Phantom(241, 181)  # for its sizes
    theta = half_turn(120)
    engine = engine_for(ball, 120, "float32", fields=False, library=library)
    engine.set_flat(np.ones(frame.shape))
    engine.push(np.repeat(frame[None].astype(np.float32), 120, 0), theta, np.arange(120))
    place = {"center": 120.0, "ortho_x": 120, "ortho_y": 120, "ortho_z": 90}
    slices = engine.reconstruct(middle(ball, filter_type="Ramp", **place, **Homogeneous.params))
    mu = Homogeneous.mu * Homogeneous.pixel_m  # per pixel
    columns = np.arange(241) - 120.0
    for image, rows in ((slices.z, columns), (slices.y, np.arange(181) - 90.0)):
        r = np.hypot(rows[:, None], columns)
        assert image[r < 42].mean() == pytest.approx(mu, rel=0.02)
        assert np.abs(image[r < 42] - mu).max() < 0.1 * mu
        assert abs(image[(r > 58) & (r < 90)]).mean() < 0.02 * mu
    without = engine.reconstruct(middle(ball, filter_type="Ramp", **place))
    assert np.abs(without.z - mu).max() > 5 * mu


@pytest.mark.parametrize(("n_rows", "n"), [(20, 64), (33, 101)])
@pytest.mark.parametrize("dezinger", [0, 3])
def test_numba_equals_the_reference(n_rows, n, dezinger):
    phantom, theta = Phantom(n, n_rows), half_turn(90)
    params = middle(phantom, dezinger=dezinger, **PHASE)
    slices = []
    engine = engine_for(phantom, 90)
    for library, compute in (("numba", "float32"), ("torch", "float64")):
        engine = engine_for(phantom, 90, library=library, compute=compute)
        engine.push(phantom.raw(theta, n / 2 - 0.5), theta, np.arange(90))
        slices.append(engine.reconstruct(params))
    assert worst(*slices) < 1e-4
    assert worst(slices[1], engine.reconstruct(middle(phantom, dezinger=dezinger))) > 0.05


def full_engine(phantom, raw, theta, library="auto", **options):
    engine = engine_for(phantom, len(raw), library=library, **options)
    engine.push(raw, theta, np.arange(len(raw)))
    return engine


SMALL = Phantom(64, 20)
THETA = half_turn(40)
RAW = SMALL.raw(THETA, 31.0)
OTHER = Phantom(64, 20, scale=0.6).raw(THETA + 180.0, 31.0)


def test_a_change_of_each_parameter_equals_a_fresh_engine(library):
    engine = full_engine(SMALL, RAW, THETA, library)
    params = middle(SMALL, **PHASE)
    shown = [engine.reconstruct(middle(SMALL)), engine.reconstruct(params)]
    for name, value in PHASE.items():
        params = middle(SMALL, **PHASE | {name: 2 * value})
        fresh = full_engine(SMALL, RAW, THETA, library).reconstruct(params)
        shown.append(engine.reconstruct(params))
        assert worst(shown[-1], fresh) < 1e-6
        assert worst(shown[-1], shown[1]) > 1e-3
    # frames go on coming while it is on
    engine.push(OTHER[:9], THETA[:9] + 180.0, np.arange(9))
    raw, theta = RAW.copy(), THETA.copy()
    raw[:9], theta[:9] = OTHER[:9], THETA[:9] + 180.0
    fresh = full_engine(SMALL, raw, theta, library).reconstruct(params)
    assert worst(engine.reconstruct(params), fresh) < 1e-5


@pytest.mark.parametrize("off", OFF)
def test_off_is_as_if_it_did_not_exist(library, off):
    engine = full_engine(SMALL, RAW, THETA, library)
    never = engine.reconstruct(middle(SMALL))
    engine.reconstruct(middle(SMALL, **PHASE))
    again = engine.reconstruct(middle(SMALL, **PHASE | off))
    for name in "zyx":
        np.testing.assert_array_equal(getattr(again, name), getattr(never, name))
    assert vars(engine._chain)["_phase"] is None  # nor does it keep memory


@pytest.mark.parametrize("dtype", ["uint16", "float32", "int32"])
def test_unusable_pixels_are_bridged_before_and_counted(library, dtype):
    """Dead, hot and NaN pixels must not spread over the filter's reach."""
    clean = SMALL.raw(THETA, 31.0, dtype)
    params = middle(SMALL, **PHASE)
    expected = full_engine(SMALL, clean, THETA, library, dtype=dtype).reconstruct(params)
    raw, dark, flat = clean.copy(), SMALL.dark(), SMALL.flat()
    raw[:, 5, 30] = 0
    flat[5, 30] = dark[5, 30]  # dead
    raw[:, 9, 40:42] = 30000 if dtype == "uint16" else 2e9
    dark[9, 40:42] = np.inf  # hot
    flat[11, 63] = np.nan
    n_bad = 4
    if dtype == "float32":
        raw[:, 14, 20:22] = np.nan
        raw[:, 14, 0] = np.inf
        raw[:, 11, 63] = np.nan  # counts once
        n_bad += 3
    engine = engine_for(SMALL, 40, dtype, fields=False, library=library)
    engine.set_dark(dark)
    engine.set_flat(flat)
    engine.push(raw, THETA, np.arange(40))
    shown = engine.reconstruct(params)
    assert engine.bad_pixels == n_bad
    assert worst(shown, expected) < 0.03
    engine.push(raw[:3], THETA[:3], np.arange(3))
    assert engine.bad_pixels == n_bad
    dark[12] = np.nan  # a whole row
    engine.set_dark(dark)
    empty_row = engine.reconstruct(params)
    assert engine.bad_pixels == n_bad + 64
    assert all(np.isfinite(getattr(empty_row, name)).all() for name in "zyx")


def test_frames_of_nonsense_stay_finite(library):
    raw = SMALL.raw(THETA, 31.0, "float32")
    raw[3] = np.nan
    raw[4, :, ::2] = np.inf
    raw[5] = -1e38
    raw[6] = 3e38
    engine = full_engine(SMALL, raw, THETA, library, dtype="float32")
    slices = engine.reconstruct(middle(SMALL, **PHASE))
    assert all(np.isfinite(getattr(slices, name)).all() for name in "zyx")


def test_noise_about_an_opaque_object_is_averaged_before_it_is_cut_off(library):
    """T = 0.002 +- 0.02 is below 0 nearly as often as above: cut off first it would be 0.009."""
    rng = np.random.default_rng(7)
    counts = np.rint(1000 + 20 + 200 * rng.standard_normal((40, 20, 64))).astype(np.uint16)
    engine = engine_for(SMALL, 40, fields=False, library=library)
    engine.set_dark(np.full((20, 64), 1000.0))
    engine.set_flat(np.full((20, 64), 11000.0))
    engine.push(counts, THETA, np.arange(40))
    strong = PHASE | {"alpha": 3e-6}
    shown = engine.reconstruct(middle(SMALL, filter_type="Ramp", **strong))
    engine.push(np.full_like(counts, 1020), THETA, np.arange(40))
    expected = engine.reconstruct(middle(SMALL, filter_type="Ramp", **strong))
    assert shown.z[22:42, 22:42].mean() == pytest.approx(expected.z[22:42, 22:42].mean(), rel=0.1)


def test_a_filter_wider_than_the_frame_is_refused(library):
    engine = full_engine(SMALL, RAW, THETA, library)
    before = engine.reconstruct(middle(SMALL, **PHASE))
    for changes in ({"alpha": 1e-9}, {"pixel_size_um": 1e-5}, {"energy_kev": 1e-300}):
        with pytest.raises(ParameterError, match="Alpha"):
            engine.reconstruct(middle(SMALL, **PHASE | changes))
    assert worst(engine.reconstruct(middle(SMALL, **PHASE)), before) == 0.0


def test_the_note_names_what_is_missing():
    assert middle(SMALL).phase_note == ""
    assert middle(SMALL, **PHASE).phase_note == ""
    assert middle(SMALL, **PHASE | {"alpha": 0.0}).phase_note == ""  # the switch
    note = middle(SMALL, **PHASE | {"energy_kev": 0.0, "pixel_size_um": 0.0}).phase_note
    assert "Energy and PixelSize" in note
    assert "Distance" not in note
    assert "set Alpha above 0" in middle(SMALL, **PHASE | {"alpha": -1.0}).phase_note


def test_heartbeat_beats_with_every_frame():
    beats = []
    engine = engine_for(SMALL, 40, library="numba", heartbeat=lambda: beats.append(1))
    engine.push(RAW, THETA, np.arange(40))
    engine.reconstruct(middle(SMALL, **PHASE))
    assert len(beats) >= 40
    beats.clear()
    engine.push(RAW[:16], THETA[:16], np.arange(16))
    assert len(beats) >= 16
