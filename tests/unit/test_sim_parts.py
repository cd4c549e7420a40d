"""The simulator's parts without EPICS: detector, binning, schedule, faults, DXfiles, options."""

from __future__ import annotations

import math
import socket
from pathlib import Path

import h5py
import numpy as np
import pytest
from support.ports import free_port

from tomostream_ioc.errors import ConfigError
from tomostream_ioc.scan_file import ScanFile
from tomostream_ioc.sim.channels import Channels
from tomostream_ioc.sim.cli import parse
from tomostream_ioc.sim.detector import Detector, DetectorSettings, bin_frame
from tomostream_ioc.sim.faults import FaultPlan, FaultRates
from tomostream_ioc.sim.phantom import default_phantom
from tomostream_ioc.sim.records import RecordNames
from tomostream_ioc.sim.schedule import Schedule
from tomostream_ioc.sim.source import FileSource, PhantomSource


def line_integrals(frame, detector):
    counts = frame.astype(np.float64)
    return -np.log((counts - detector.dark) / (detector.flat - detector.dark))


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "float32", "float64"])
def test_a_noiseless_frame_gives_the_line_integrals_back(dtype):
    p = default_phantom(24, 40).projection(0.5, 20.0)
    detector = Detector(24, 40, DetectorSettings(dtype=dtype, noise=False))
    frame = detector.expose(p, 0)
    assert frame.dtype == dtype
    rounding = {"uint8": 0.2}.get(dtype, 2e-3)
    assert np.abs(line_integrals(frame, detector) - p).max() < rounding


def test_noise_is_that_of_counted_photons():
    detector = Detector(64, 64, DetectorSettings(i0=2000.0))
    frames = np.stack([detector.flat_frame(serial) for serial in range(200)]).astype(np.float64)
    assert np.mean(frames.mean(axis=0) - detector.flat) == pytest.approx(0, abs=0.5)
    assert np.mean(frames.var(axis=0) / detector.flat) == pytest.approx(1, abs=0.03)
    assert not np.array_equal(frames[0], frames[1])
    np.testing.assert_array_equal(detector.flat_frame(3), detector.flat_frame(3))


def test_counts_saturate_and_never_wrap():
    detector = Detector(8, 8, DetectorSettings(dtype="uint8", i0=255.0))
    frame = detector.expose(np.full((8, 8), -5.0, np.float32), 0)
    assert frame.min() == 255
    assert detector.dark_frame(0).max() < 30


def test_stripes_are_in_projections_and_not_in_the_flat():
    detector = Detector(16, 64, DetectorSettings(noise=False, stripes=3, dtype="float32"))
    p = line_integrals(detector.expose(np.zeros((16, 64), np.float32), 0), detector)
    assert np.count_nonzero(p.mean(axis=0) > 0.02) == 3


@pytest.mark.parametrize("options", [{"dtype": "complex64"}, {"dtype": "bogus"}, {"i0": 1e6}])
def test_a_detector_that_cannot_be_is_refused(options):
    with pytest.raises(ConfigError):
        Detector(8, 8, DetectorSettings(**options))


def test_binning_is_the_rounded_mean_in_the_same_type():
    frame = np.array([[1, 2, 9], [2, 2, 9], [9, 9, 9]], np.uint16)
    binned = bin_frame(frame, 2)
    assert binned.dtype == np.uint16
    np.testing.assert_array_equal(binned, [[2]])  # 1.75; the odd row and column are cut off
    field = np.arange(64, dtype=np.float32).reshape(8, 8)
    np.testing.assert_allclose(bin_frame(field, 4), [[13.5, 17.5], [45.5, 49.5]])
    assert bin_frame(frame, 1) is frame


def test_continuous_angles_grow_past_360():
    schedule = Schedule("continuous", np.arange(0, 360, 45.0))
    theta = schedule.theta_deg(3)
    np.testing.assert_allclose(theta, 45.0 * np.arange(24))
    assert [schedule.projection_index(k) for k in (0, 7, 8, 17)] == [0, 7, 0, 1]


def test_continuous_angles_may_fall():
    schedule = Schedule("continuous", -np.arange(0, 360, 45.0))
    np.testing.assert_allclose(schedule.theta_deg(2), -45.0 * np.arange(16))


def test_back_and_forth_turns_round():
    schedule = Schedule("backforth", np.array([0.0, 60.0, 120.0]))
    np.testing.assert_allclose(schedule.theta_deg(2), [0, 60, 120, 120, 60, 0] * 2)
    assert [schedule.projection_index(k) for k in range(8)] == [0, 1, 2, 2, 1, 0, 0, 1]


def test_a_half_turn_cannot_go_on_continuously():
    with pytest.raises(ConfigError, match="backforth"):
        Schedule("continuous", np.arange(0, 180, 1.0))


def test_faults_lose_double_and_swap_exactly_what_they_count():
    plan = FaultPlan(5, FaultRates(loss=0.1, duplicates=0.05, disorder=0.1))
    order = [number for k in range(2000) for number in plan.send_order(k)]
    order += plan.flush()
    totals = plan.totals
    assert totals.lost > 100
    assert totals.duplicated > 50
    assert totals.swapped > 100
    assert sorted(set(range(2000)) - set(order)) == plan.lost
    assert len(plan.lost) == totals.lost
    assert len(order) == 2000 - totals.lost + totals.duplicated
    assert np.count_nonzero(np.diff(order) < 0) == totals.swapped
    again = FaultPlan(5, FaultRates(loss=0.1, duplicates=0.05, disorder=0.1))
    assert [n for k in range(2000) for n in again.send_order(k)] + list(again.flush()) == order


def test_a_frame_held_at_the_end_is_sent():
    plan = FaultPlan(0, FaultRates(disorder=1.0))
    assert plan.send_order(0) == []
    assert plan.send_order(1) == [1, 0]
    assert plan.send_order(2) == []
    assert list(plan.flush()) == [2]
    assert plan.totals.swapped == 1


@pytest.mark.parametrize("memory_bytes", [0, 1 << 20])
def test_what_moves_is_put_into_the_stored_frames(memory_bytes):
    """Frames computed ahead plus the moving part equal frames computed at once."""
    phantom = default_phantom(48, 48, dynamic="move", period_turns=4.0)
    detector = Detector(48, 48, DetectorSettings())
    source = PhantomSource(phantom, detector, 10, 23.5, 0.0, memory_bytes)
    source.prepare(source.schedule("continuous"), lambda: False)
    for index, turns in ((0, 0.0), (3, 1.0), (17, 3.0)):
        theta = math.radians(18.0 * index)
        expected = detector.expose(phantom.projection(theta, 23.5, turns=turns), index)
        difference = source.projection(index, turns).astype(int) - expected
        assert np.abs(difference).max() <= 1  # float32 sums in another order
    assert source.turns(40) == 2.0


@pytest.fixture
def write_dxfile(tmp_path):
    def write(**changes):
        rng = np.random.default_rng(0)
        datasets = {
            "data": rng.integers(0, 4000, (5, 6, 7), dtype=np.uint16),
            "data_dark": np.full((2, 6, 7), 10, np.uint16),
            "data_white": rng.uniform(5000, 6000, (6, 7)).astype(np.float32),
            "theta": np.linspace(0, 144, 5),
        }
        datasets.update(changes)
        path = tmp_path / "scan.h5"
        with h5py.File(path, "w") as file:
            for name, values in datasets.items():
                if values is not None:
                    file[f"exchange/{name}"] = values
        return path, datasets

    return write


@pytest.mark.parametrize("memory_bytes", [0, 1 << 20])
def test_a_dxfile_is_read(write_dxfile, memory_bytes):
    path, datasets = write_dxfile(data=np.arange(210, dtype=">u2").reshape(5, 6, 7))
    source = FileSource(ScanFile(path, memory_bytes))
    assert (source.shape, source.dtype, source.center) == ((6, 7), np.uint16, None)
    np.testing.assert_array_equal(source.projection(4, 0.0), datasets["data"][4])
    assert source.projection(4, 0.0).dtype == np.dtype("uint16")
    np.testing.assert_allclose(source.averaged_field("flat", []), datasets["data_white"])
    np.testing.assert_allclose(source.averaged_field("dark", []), 10)
    assert source.field_frame("flat", 9).dtype == np.uint16
    np.testing.assert_allclose(source.schedule("backforth").pass_theta_deg, datasets["theta"])
    with pytest.raises(ConfigError, match="whole turn"):
        source.schedule("continuous")
    source.close()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"data": None}, "no dataset exchange/data"),
        ({"theta": None}, "no dataset exchange/theta"),
        ({"theta": np.zeros(4)}, "4 angles"),
        ({"theta": np.full(5, np.nan)}, "NaN"),
        ({"data_dark": np.zeros((2, 6, 6), np.uint16)}, "data_dark"),
        ({"data": np.zeros((5, 6), np.uint16)}, "shape"),
        ({"data": np.zeros((0, 6, 7), np.uint16)}, "shape"),
        ({"data_white": np.array(b"text")}, "not numbers"),
    ],
)
def test_a_file_that_is_no_dxfile_is_refused(write_dxfile, changes, says):
    path, _ = write_dxfile(**changes)
    with pytest.raises(ConfigError, match=says):
        ScanFile(path, 1 << 20)


def test_a_file_that_is_not_there_or_no_hdf5_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="does not exist"):
        ScanFile(tmp_path / "none.h5", 0)
    text = tmp_path / "text.h5"
    text.write_text("no HDF5")
    with pytest.raises(ConfigError, match="no HDF5 file"):
        ScanFile(text, 0)


def test_the_shared_scan_is_read():
    path = Path(__file__).parents[3] / "shared" / "data" / "savu24737_dx.h5"
    if not path.exists():
        pytest.skip(f"{path} is not here: the shared scan belongs to no checkout")
    scan = ScanFile(path, 1 << 30)
    assert (scan.n_projections, scan.shape, scan.dtype) == (91, (135, 160), np.uint16)
    assert scan.theta_deg[0] == pytest.approx(-88.2)
    scan.close()


def test_options_have_the_names_and_defaults_of_the_beamline():
    config = parse([])
    assert config.names.tomoscan == "2bmb:TomoScanStream:"
    assert config.names.image == "2bmbSP1:Pva1:Image"
    assert (config.scan_type, config.center, config.first_projid) == ("continuous", 256.0, 0)
    assert parse(["--scan", "x.h5"]).scan_type == "backforth"
    assert parse(["--rows", "30", "--size", "64"]).n_rows == 30
    assert parse(["--id-start", "101"]).first_projid == 100


@pytest.mark.parametrize(
    "argv",
    [
        ["--bogus"],
        ["--loss", "1.5"],
        ["--rate", "nan"],
        ["--rate", "-1"],
        ["--size", "0"],
        ["--ca-port", "70000"],
        ["--center", "600"],
        ["--period", "0"],
        ["--scan-type", "helix"],
        ["--frames", "x"],
        ["--P", "", "--R", ""],
        ["--P", "a b"],
        ["--P", "a.b:"],
        ["--P", "a" * 40],
        ["--dark-channel", "same", "--flat-channel", "same"],
        ["--dark-channel", "2bmb:TomoScanStream:StreamTheta"],
        ["--theta-channel", "my theta"],
        ["--turns", "100000000"],
        ["--turns", "1", "--angles", "20000000"],
        ["--id-start", "-1"],
        ["--id-start", "65536", "--id-bits", "16"],
        ["--first-projid", "1.5"],
    ],
)
def test_wrong_options_are_refused_in_one_line(argv):
    with pytest.raises(ConfigError) as refusal:
        parse(argv)
    assert "\n" not in str(refusal.value)


def test_a_port_of_searches_in_use_is_an_error_of_the_system():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        conf = {
            "EPICS_PVAS_INTF_ADDR_LIST": "127.0.0.1",
            "EPICS_PVAS_SERVER_PORT": str(free_port()),
            "EPICS_PVAS_BROADCAST_PORT": str(taken.getsockname()[1]),
        }
        channels = Channels(RecordNames("sys:", "sys:Pva1:").channels)
        with pytest.raises(OSError, match="EPICS_PVAS_BROADCAST_PORT"):
            channels.serve(conf)
        channels.close()
