"""StreamBinning through the whole product: the phantom at half size, and back while it streams."""

import numpy as np
import pytest
from support.ports import ServerPorts, environment
from support.processes import Child, Ioc, wait_for

from tomostream_ioc.sim.phantom import default_phantom

N_ROWS, N_COLS, N_ANGLES, CENTER = 96, 192, 240, 99.25
#: OrthoX, OrthoY and OrthoZ in the detector's pixels
PLACE = (N_COLS // 2 + 12, N_COLS // 2 - 8, 40)


@pytest.fixture(scope="module")
def ioc(tmp_path_factory):
    folder = tmp_path_factory.mktemp("binning")
    ports = ServerPorts()
    options = f"--P sys: --rows {N_ROWS} --cols {N_COLS} --angles {N_ANGLES} --center {CENTER}"
    simulator = Child(
        ["-m", "tomostream_ioc.sim", *options.split(), "--rate", "150", "--i0", "60000"],
        environment(ports),
    )
    ioc = Ioc(folder, reach=(ports,))
    try:
        simulator.expect("ready")
        ioc.expect("Ready")
        for record, value in {"Center": CENTER, "FilterType": "Ramp"}.items():
            ioc.put(record, value, wait=True)
        for axis, value in zip("XYZ", PLACE, strict=True):
            ioc.put(f"Ortho{axis}", value, wait=True)
        yield ioc
    finally:
        ioc.close()
        simulator.close()


def place(ioc):
    return (ioc.get("Center"), *(ioc.get(f"Ortho{axis}") for axis in "XYZ"))


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


def agree(image, truth, margin=0.45):
    """Correlation and scale of a reconstruction with the truth, where every projection sees it."""
    n_rows, n_cols = image.shape
    columns = np.arange(n_cols) - n_cols // 2
    rows = np.arange(n_rows)[:, None] - n_rows // 2 if n_rows == n_cols else 0
    inside = np.broadcast_to(np.hypot(rows, columns) < margin * n_cols, image.shape)
    a, b = image[inside], truth[inside]
    return np.corrcoef(a, b)[0, 1], float(np.dot(a, b) / np.dot(b, b))


def check_slices(ioc, k):
    for axis, truth in truths(k).items():
        image = ioc.slices.get(ioc.recon + axis)[0]
        assert image.shape == truth.shape
        correlation, scale = agree(image, truth)
        assert correlation > 0.97, axis
        assert abs(scale - 1) < 0.03, axis  # attenuation per binned pixel: k times as much


def test_half_size_on_the_fly_and_back(ioc):
    """1x, 2x, 1x while frames come: the same place in the sample, and the same sample."""
    ioc.start()
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
    for record in ("FramesMissed", "FramesDropped", "FramesRejected", "FramesDuplicate"):
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
        assert agree(ioc.slices.get(ioc.recon + axis)[0], truths(4)[axis])[0] > 0.9, axis
