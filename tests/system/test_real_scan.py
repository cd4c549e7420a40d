"""A real scan, sent by pvapy and softioc, against scikit-image's filtered back-projection."""

from pathlib import Path

import h5py
import numpy as np
import pytest
from scipy.ndimage import shift
from skimage.transform import iradon
from support.ports import ServerPorts, environment
from support.processes import Child, Ioc, wait_for

SCAN = Path(__file__).parents[3] / "shared" / "data" / "savu24737_dx.h5"
PVA_TESTS = Path(__file__).parent.parent / "pva"
CENTER = 86.5
N_ANGLES = 90  # the 91st projection is the first one mirrored

pytestmark = pytest.mark.skipif(not SCAN.is_file(), reason="needs ../shared/data")


@pytest.fixture(scope="module")
def scan():
    with h5py.File(SCAN) as file:
        names = ("data", "data_dark", "data_white", "theta")
        return {name: np.array(file[f"exchange/{name}"]) for name in names}


@pytest.fixture(scope="module")
def truth(scan):
    """The volume (z, y, x) by scikit-image, from the same 90 projections."""
    dark = scan["data_dark"].astype(float).mean(0)
    flat = scan["data_white"].astype(float).mean(0)
    transmission = (scan["data"][:N_ANGLES] - dark) / np.maximum(flat - dark, 1)
    sinograms = -np.log(np.clip(transmission, 1e-3, None)).transpose(1, 2, 0)  # (z, u, angle)
    n_cols = sinograms.shape[1]
    centred = shift(sinograms, (0, n_cols // 2 - CENTER, 0), order=1, mode="nearest")
    theta = scan["theta"][:N_ANGLES]
    return np.stack([iradon(s, theta, n_cols, filter_name="ramp", circle=True) for s in centred])


@pytest.fixture(scope="module")
def ioc(scan, tmp_path_factory):
    folder = tmp_path_factory.mktemp("real")
    for name in ("data", "theta"):
        np.save(folder / f"{name}.npy", scan[name])
    for name in ("data_dark", "data_white"):
        np.save(folder / f"{name}.npy", scan[name].astype(np.float32).mean(0))
    detector_ports, tomoscan_ports = ServerPorts(), ServerPorts()
    detector = Child(
        [str(PVA_TESTS / "pvapy_sender.py"), "--frames", str(folder / "data.npy")],
        environment(detector_ports),
    )
    tomoscan = Child([str(PVA_TESTS / "softioc_tomoscan.py")], environment(tomoscan_ports))
    options = (
        "--TOMO_SCAN T:TS: --IMAGE_P T:TS:PvaPluginPVPrefix --THETA_PVA T:StreamTheta "
        "--DARK_PVA T:StreamDarkFields --FLAT_PVA T:StreamFlatFields"
    )
    ioc = Ioc(folder, *options.split(), reach=(detector_ports, tomoscan_ports))
    try:
        detector.expect("ready")
        tomoscan.expect("ready")
        ioc.expect("Ready")
        for line in (
            f"dark file={folder / 'data_dark.npy'}",
            f"flat file={folder / 'data_white.npy'}",
            f"theta file={folder / 'theta.npy'}",
        ):
            detector.say(line)
            detector.expect("ok")
        for record, value in {"Center": CENTER, "FilterType": "Ramp"}.items():
            ioc.put(record, value, wait=True)
        ioc.start()
        ioc.wait_status("waiting for the first projection")
        detector.say(f"burst {N_ANGLES} start=1 hz=100")
        detector.expect("ok")
        ioc.wait_value("FramesReceived", N_ANGLES)
        wait_for(lambda: "so far" not in ioc.status(), 5, "the ring to fill")
        yield ioc
    finally:
        for child in (ioc, detector, tomoscan):
            child.close()


@pytest.mark.parametrize(("x", "y", "z"), [(80, 80, 67), (101, 60, 80)])
def test_slices_agree_with_scikit_image(ioc, truth, x, y, z):
    for record, value in {"OrthoX": x, "OrthoY": y, "OrthoZ": z}.items():
        ioc.put(record, value, wait=True)
    n_cols = truth.shape[2]
    column = np.arange(n_cols) - n_cols // 2
    # the axis is 73 columns from the edge: beyond that, and near it, truncation decides
    radius = 58
    disk = np.hypot(column[:, None], column) < radius
    expected = {
        "Z": (truth[z], disk),
        "Y": (truth[:, y, :], np.broadcast_to(disk[y], truth[:, y, :].shape)),
        "X": (truth[:, :, x], np.broadcast_to(disk[:, x], truth[:, :, x].shape)),
    }
    for axis, (slice_, seen) in expected.items():

        def shown(axis=axis):
            image, facts = ioc.slices.get(ioc.recon + axis)
            places = [facts["attributes"][f"Ortho{a}"] for a in "XYZ"]
            return image if places == [x, y, z] else None

        image = wait_for(shown, 5, f"slice {axis} at the new place")
        correlation = np.corrcoef(image[seen], slice_[seen])[0, 1]
        assert correlation > 0.95, (axis, correlation)
        scale = np.dot(image[seen], slice_[seen]) / np.dot(slice_[seen], slice_[seen])
        assert abs(scale - 1) < 0.05, (axis, scale)


def test_nothing_was_lost(ioc):
    counts = {n: ioc.get(f"Frames{n}") for n in ("Received", "Missed", "Dropped", "Rejected")}
    assert counts == {"Received": N_ANGLES, "Missed": 0, "Dropped": 0, "Rejected": 0}
