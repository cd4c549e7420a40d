"""The whole product: simulated stream -> IOC -> slices, against the phantom's analytic truth."""

import numpy as np
import pytest
from support.ports import ServerPorts, environment
from support.processes import Child, Ioc, wait_for

from tomostream_ioc.sim.phantom import default_phantom

N_ROWS, N_COLS, N_ANGLES, CENTER = 160, 192, 300, 99.25


@pytest.fixture(scope="module")
def ioc(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantom")
    ports = ServerPorts()
    options = f"--P sys: --rows {N_ROWS} --cols {N_COLS} --angles {N_ANGLES} --center {CENTER}"
    simulator = Child(
        ["-m", "tomostream_ioc.sim", *options.split(), "--rate", "200", "--i0", "60000"],
        environment(ports),
    )
    ioc = Ioc(folder, reach=(ports,))
    try:
        simulator.expect("ready")
        ioc.expect("Ready")
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
    finally:
        ioc.close()
        simulator.close()


def inside(slice_, axis_margin=0.47):
    """The part of a slice that every projection sees."""
    n_rows, n_cols = slice_.shape
    columns = np.abs(np.arange(n_cols) - n_cols // 2) < axis_margin * n_cols
    if n_rows != n_cols:
        return slice_[:, columns]
    rows = np.arange(n_rows)[:, None] - n_rows // 2
    return slice_[np.hypot(rows, np.arange(n_cols) - n_cols // 2) < axis_margin * n_cols]


def agree(image, truth):
    """Correlation and scale of a reconstruction with the truth."""
    a, b = inside(image).ravel(), inside(truth).ravel()
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
    for record in ("FramesMissed", "FramesDropped", "FramesRejected", "FramesDuplicate"):
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
