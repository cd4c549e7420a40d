"""The whole product: simulated stream -> IOC -> slices, against the phantom's analytic truth.

Last StreamBinning: the phantom at half size, and back while it streams.
"""

import numpy as np
import pytest
from support.processes import wait_for
from support.rig import simulated

from tomostream_ioc.sim.phantom import default_phantom

N_ROWS, N_COLS, N_ANGLES, CENTER = 160, 192, 300, 99.25
#: OrthoX, OrthoY and OrthoZ in the detector's pixels, for binning
PLACE = (N_COLS // 2 + 12, N_COLS // 2 - 8, 40)
LOSSES = "FramesMissed", "FramesDropped", "FramesRejected", "FramesDuplicate"


@pytest.fixture(scope="module")
def ioc(tmp_path_factory):
    what = f"--rows {N_ROWS} --cols {N_COLS} --angles {N_ANGLES} --center {CENTER}"
    folder = tmp_path_factory.mktemp("phantom")
    with simulated(folder, f"{what} --rate 200 --i0 60000") as ioc:
        for record, value in {"Center": CENTER, "FilterType": "Ramp"}.items():
            ioc.put(record, value, wait=True)
        ioc.start()
        wait_for(
            lambda: (
                ioc.get("BufferSize").endswith(f"/{N_ANGLES}")
                and ioc.status().startswith("Running")
                and "so far" not in ioc.status()
            ),
            30,
            "the ring to fill",
        )
        yield ioc


def inside(slice_, axis_margin=0.47):
    """The part of a slice that every projection sees."""
    n_rows, n_cols = slice_.shape
    columns = np.abs(np.arange(n_cols) - n_cols // 2) < axis_margin * n_cols
    if n_rows != n_cols:
        return slice_[:, columns]
    rows = np.arange(n_rows)[:, None] - n_rows // 2
    return slice_[np.hypot(rows, np.arange(n_cols) - n_cols // 2) < axis_margin * n_cols]


def agree(image, truth, axis_margin=0.47):
    """Correlation and scale of a reconstruction with the truth."""
    a, b = (inside(each, axis_margin).ravel() for each in (image, truth))
    return np.corrcoef(a, b)[0, 1], float(np.dot(a, b) / np.dot(b, b))


@pytest.mark.parametrize(
    ("x", "y", "z"), [(N_COLS // 2, N_COLS // 2, N_ROWS // 2), (70, 120, 50), (110, 88, 97)]
)
def test_slices_agree_with_the_truth_wherever_they_are(ioc, x, y, z):
    for record, value in {"OrthoX": x, "OrthoY": y, "OrthoZ": z}.items():
        ioc.put(record, value, wait=True)
    phantom = default_phantom(N_ROWS, N_COLS)
    truths = {
        "Z": phantom.slice_z(z, supersample=3),
        "Y": phantom.slice_y(y, supersample=3),
        "X": phantom.slice_x(x, supersample=3),
    }
    for axis, truth in truths.items():

        def shown(axis=axis):
            image, facts = ioc.slices.get(ioc.recon + axis)
            places = [facts["attributes"][f"Ortho{a}"] for a in "XYZ"]
            return image if places == [x, y, z] else None

        image = wait_for(shown, 5, f"slice {axis} at the new place")
        correlation, scale = agree(image, truth)
        assert correlation > 0.97, axis
        assert abs(scale - 1) < 0.03, axis


def test_nothing_was_lost(ioc):
    assert ioc.get("FramesReceived") > N_ANGLES
    for record in LOSSES:
        assert ioc.get(record) == 0, record


def test_combined_image_holds_the_three_slices(ioc):
    image, facts = ioc.slices.get(ioc.recon)
    assert facts["sizes"] == [3 * N_COLS, max(N_COLS, N_ROWS)]
    assert facts["kind"] == "floatValue"
    assert np.isnan(image).any()  # the crosshair
    assert facts["attributes"]["ColorMode"] == 0
    ioc.put("Crosshair", 0, wait=True)
    image = wait_for(
        lambda: (
            (got := ioc.slices.get(ioc.recon)[0]) is not None and not np.isnan(got).any() and got
        ),
        5,
        "an image without crosshair",
    )
    y_slice = image[:N_ROWS, N_COLS : 2 * N_COLS]
    alone = ioc.slices.get(f"{ioc.recon}Y")[0]
    assert np.corrcoef(y_slice.ravel(), alone.ravel())[0, 1] > 0.99
    assert (image[N_ROWS:, N_COLS:] == 0).all()


def test_phase_retrieval_is_seen_in_the_next_slices_and_goes_again(ioc):
    """The phantom has no fringes, so that the filter smooths it."""

    def roughness():
        image = inside(ioc.slices.get(f"{ioc.recon}Z")[0])
        return float(np.abs(np.diff(image)).mean())

    rough = roughness()
    for record, value in {"Energy": 20.0, "Distance": 100.0, "PixelSize": 1.0}.items():
        ioc.put(record, value, wait=True)
    assert roughness() == pytest.approx(rough, rel=0.1)
    assert "phase" not in ioc.status()
    ioc.put("Alpha", 1e-3, wait=True)
    wait_for(lambda: roughness() < 0.5 * rough, 10, "slices with phase retrieval")
    ioc.put("Distance", 0.0, wait=True)
    ioc.wait_status("set Distance above 0")
    wait_for(lambda: roughness() > 0.9 * rough, 10, "slices without phase retrieval")
    ioc.put("Alpha", 1e-9, wait=True)
    ioc.put("Distance", 100.0, wait=True)
    ioc.wait_status("raise Alpha")
    ioc.put("Alpha", 0.0, wait=True)
    wait_for(lambda: "phase" not in ioc.status(), 10, "the sentence to go")


# --- StreamBinning -----------------------------------------------------------------------------


def place(ioc):
    return (ioc.get("Center"), *(ioc.get(f"Ortho{axis}") for axis in "XYZ"))


def shown_place(ioc):
    """Of the slice that is shown last."""
    attributes = ioc.slices.get(f"{ioc.recon}Z")[1]["attributes"]
    return tuple(attributes[f"Ortho{axis}"] for axis in "XYZ")


def wait_filled(ioc, binning):
    """The ring is full of frames that are binned so."""

    def shown():
        attributes = ioc.slices.get(f"{ioc.recon}Z")[1]["attributes"]
        return attributes.get("Binning") == binning and attributes["NumAngles"] == N_ANGLES

    wait_for(shown, 30, f"a full ring, binned {binning}x")


def block_mean(image, k):
    n_rows, n_cols = image.shape[0] // k, image.shape[1] // k
    return image.reshape(n_rows, k, n_cols, k).mean(axis=(1, 3))


def truths(k):
    """The phantom's slices in voxels of k x k x k, times k: what they attenuate, as thick as that.

    Index n // 2 is the axis itself, so that a voxel begins k // 2 before its middle there.
    """
    phantom = default_phantom(N_ROWS, N_COLS)
    x, y, z = PLACE

    def mean(slice_at, first):
        return np.mean([slice_at(first + i, supersample=3) for i in range(k)], axis=0)

    def coarse(image, from_axis):
        return k * block_mean(np.roll(image, k // 2, axis=from_axis), k)

    return {
        "Z": coarse(mean(phantom.slice_z, z), (0, 1)),
        "Y": coarse(mean(phantom.slice_y, y - k // 2), 1),
        "X": coarse(mean(phantom.slice_x, x - k // 2), 1),
    }


def check_slices(ioc, k):
    for axis, truth in truths(k).items():
        image = ioc.slices.get(ioc.recon + axis)[0]
        assert image.shape == truth.shape
        correlation, scale = agree(image, truth, 0.45)
        assert correlation > 0.97, axis
        assert abs(scale - 1) < 0.03, axis  # attenuation per binned pixel: k times as much


def test_half_size_on_the_fly_and_back(ioc):
    """1x, 2x, 1x while frames come: the same place in the sample, and the same sample."""
    ioc.put("Crosshair", 1, wait=True)
    for axis, value in zip("XYZ", PLACE, strict=True):
        ioc.put(f"Ortho{axis}", value, wait=True)
    wait_for(lambda: shown_place(ioc) == PLACE, 10, "slices there")
    wait_filled(ioc, 1)
    check_slices(ioc, 1)

    ioc.put("StreamBinning", "2x", wait=True)
    half = (CENTER + 0.5) / 2 - 0.5, N_COLS // 4 + 6, N_COLS // 4 - 4, 20
    assert place(ioc) == half
    wait_filled(ioc, 2)
    assert ioc.status().startswith("Running")
    check_slices(ioc, 2)
    assert place(ioc) == half  # the run has not scaled them again

    ioc.put("StreamBinning", "1x", wait=True)
    wait_filled(ioc, 1)
    assert place(ioc) == (CENTER, *PLACE)
    check_slices(ioc, 1)
    for record in LOSSES:
        assert ioc.get(record) == 0, record


def test_put_while_no_run_is_on_it_holds_from_the_next_start(ioc):
    ioc.put("AbortRecon", 1)
    ioc.wait_value("StartRecon", 0)
    ioc.put("StreamBinning", "4x", wait=True)
    quarter = place(ioc)
    assert quarter == ((CENTER + 0.5) / 4 - 0.5, N_COLS // 8 + 3, N_COLS // 8 - 2, 10)
    ioc.start()
    wait_filled(ioc, 4)
    assert place(ioc) == quarter
    image = ioc.slices.get(ioc.recon)[0]
    assert image.shape == (N_COLS // 4, 3 * N_COLS // 4)
    for axis in "ZYX":
        assert agree(ioc.slices.get(ioc.recon + axis)[0], truths(4)[axis], 0.45)[0] > 0.9, axis
