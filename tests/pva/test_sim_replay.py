"""A scan file replayed as a stream: ids, angles and pixels as they are in the file."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from sim_process import LIMIT_S, Frames, get, sim
from support.processes import wait_for


@pytest.fixture
def dxfile(tmp_path):
    path = tmp_path / "scan.h5"
    rng = np.random.default_rng(1)
    with h5py.File(path, "w") as file:
        file["exchange/data"] = rng.integers(100, 4000, (7, 12, 16), dtype=np.uint16)
        file["exchange/data_dark"] = np.full((3, 12, 16), 50, np.uint16)
        file["exchange/data_white"] = np.full((3, 12, 16), 5000, np.uint16)
        file["exchange/theta"] = np.linspace(-90, 90, 7)
    return path


def test_a_dxfile_is_replayed_back_and_forth_with_ids_that_wrap(dxfile):
    ids = ["--id-start", "65530", "--id-bits", "16", "--first-projid", "0"]
    pace = ["--frames", "28", "--rate", "100", "--idle"]
    with sim("--scan", str(dxfile), *ids, *pace) as running, running.pva() as context:
        monitor = Frames(running, context)
        running.command("start")
        frames = monitor.wait(28)
        theta = np.array(get(context, running.ready["theta"])["value"])
        dark = np.array(get(context, running.ready["dark"])["value"])
        running.stop()
    assert [i for i, _ in frames] == [*range(65530, 65536), *range(22)]
    with h5py.File(dxfile) as file:
        data = np.asarray(file["exchange/data"])
    expected = np.concatenate([data, data[::-1], data, data[::-1]])
    np.testing.assert_array_equal([image for _, image in frames], expected)
    forward = np.linspace(-90, 90, 7)
    np.testing.assert_allclose(theta[:14], [*forward, *forward[::-1]], rtol=1e-6)
    np.testing.assert_allclose(dark, 50)


def test_the_shared_scan_is_replayed():
    path = Path(__file__).parents[3] / "shared" / "data" / "savu24737_dx.h5"
    if not path.exists():
        pytest.skip(f"{path} is not here: the shared scan belongs to no checkout")
    pace = ["--rate", "0", "--frames", "91", "--wait-for-client", "--start-delay", "0.1"]
    with sim("--scan", str(path), *pace) as running:
        assert running.report()["sent"] == 0
        with running.pva() as context:
            frames = Frames(running, context)
            _, image = frames.wait(1)[0]
            assert (image.shape, image.dtype) == ((135, 160), np.uint16)
            assert get(context, running.ready["theta"])["value"][0] == pytest.approx(-88.2)
        wait_for(lambda: running.report()["sent"] == 91, LIMIT_S, "the end")
        running.stop()
