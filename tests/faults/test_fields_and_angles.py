"""Faults 4, 5 and 10 to 12: dark, flat and theta that can't be used."""

import time

import numpy as np
import pytest
from support.processes import wait_for

MAJOR = 2


@pytest.fixture(scope="module")
def timeout_s() -> float:
    """Several tests wait until it is over."""
    return 4


def severity(rig, record):
    return rig.ioc.ca.info(rig.ioc.prefix + record)["severity"]


@pytest.mark.parametrize("kind", ["dark", "flat"])
@pytest.mark.parametrize(
    "fault", ["rows=5 cols=7", "rows=0 cols=0", "value=nan", "sizex=3"], ids=str.split
)
def test_4_field_that_can_not_be_used_keeps_the_last_good_one(rig, kind, fault):
    record = f"{kind.capitalize()}PVAName"
    rig.run()
    rig.send(2, 3)
    wait_for(lambda: severity(rig, record) == 0, 5)
    rig.detector.do(f"{kind} {fault}")
    wait_for(lambda: severity(rig, record) == MAJOR, 5, "an alarm on the field's record")
    other = "FlatPVAName" if kind == "dark" else "DarkPVAName"
    assert severity(rig, other) == 0
    rig.send(4)
    rig.wait_received(4)
    image, _ = rig.ioc.slices.get(rig.ioc.recon + "Z")
    assert np.isfinite(image).all()
    rig.detector.do(f"{kind} value={0 if kind == 'dark' else 3000}")
    wait_for(lambda: severity(rig, record) == 0, 5, "the alarm to go")


def test_5_bad_pixels_give_finite_slices_and_are_counted(rig):
    rig.detector.do("flat value=-1")  # flat below dark in each pixel
    rig.run()
    rig.send(*range(2, 11))
    wait_for(lambda: rig.ioc.get("BadPixels") > 0, 5)
    image, _ = rig.ioc.slices.get(rig.ioc.recon + "Z")
    assert np.isfinite(image).all()
    rig.detector.do("flat value=3000")
    wait_for(lambda: rig.ioc.get("BadPixels") == 0, 5)


def test_5_float_frames_with_nan_and_infinity_give_finite_slices(rig, tmp_path):
    frames = np.full((20, 32, 48), 1500, np.float32)
    frames[:, 3, 5] = np.nan
    frames[::2, 16, 24] = np.inf
    np.save(tmp_path / "frames.npy", frames)
    rig.detector.close()
    rig.detector = type(rig.detector)(
        "pvapy_sender.py", rig.detector_ports, "--frames", str(tmp_path / "frames.npy")
    )
    rig.scan()
    rig.detector.do("dark value=0 rows=32 cols=48")
    rig.run()
    rig.send(*range(2, 21))
    rig.wait_received(20)
    wait_for(lambda: rig.ioc.get("BadPixels") > 0, 5)
    for axis in "XYZ":
        image, _ = rig.ioc.slices.get(rig.ioc.recon + axis)
        assert np.isfinite(image).all()


def refused(rig, reason):
    token = rig.ioc.start()
    wait_for(lambda: rig.ioc.ca.put_done(token), 30, "the busy put to complete")
    assert rig.ioc.get("StartRecon") == 0
    status = rig.ioc.status()
    assert status.startswith("Not started"), status
    assert reason in status
    # all is well again with the next good scan
    rig.scan()
    rig.run()


def test_10_no_theta_yet_is_waited_for_as_an_image_is(rig, timeout_s):
    """For longer than a channel may take to answer: users start before the scan."""
    rig.detector.close()
    rig.start_detector()
    token = rig.ioc.start()
    rig.ioc.wait_status("waiting for angles from T:StreamTheta: start the scan")
    rig.detector.do("theta 0")  # posted, and still empty
    time.sleep(timeout_s + 1)
    assert not rig.ioc.ca.put_done(token)
    assert rig.ioc.status().startswith("Arming: waiting for angles from T:StreamTheta")
    assert severity(rig, "ThetaPVAName") == 0
    rig.scan()
    rig.ioc.wait_status("waiting for the first projection")
    rig.send(1)
    rig.ioc.wait_status("1 of 60")


def test_10_theta_channel_missing_refuses_the_start(rig):
    name = rig.ioc.get("ThetaPVAName")
    rig.ioc.put("ThetaPVAName", "T:NoSuchTheta", wait=True)
    token = rig.ioc.start()
    wait_for(lambda: rig.ioc.ca.put_done(token), 30)
    assert "T:NoSuchTheta does not answer" in rig.ioc.status()
    rig.ioc.put("ThetaPVAName", name, wait=True)
    rig.run()


def test_10_theta_that_gets_empty_keeps_the_last(rig):
    rig.run()
    rig.detector.do("theta 0")
    wait_for(lambda: severity(rig, "ThetaPVAName") == MAJOR, 5)
    rig.send(2, 3)
    rig.wait_received(3)
    rig.ioc.wait_status("3 of 60 angles")


def test_11_more_frames_than_angles_go_on_by_the_step(rig):
    rig.detector.do("theta 60 step=3")
    rig.run()
    rig.detector.do("burst 149 start=2 hz=1000")
    rig.wait_received(150)
    assert rig.counts("Rejected", "Missed") == (0, 0)
    wait_for(lambda: rig.ioc.slices.get(rig.ioc.recon + "Z")[1]["attributes"]["NewestId"] == 150, 5)


def test_11_uneven_angles_end_and_what_comes_later_is_rejected(rig):
    rig.detector.do("theta values=0,1,4,9,16,25,36,49,64,81")
    rig.run()
    rig.send(*range(2, 15))
    rig.wait_received(14)
    assert rig.counts("Rejected", "Missed") == (4, 0)
    rig.ioc.wait_status("has no angle")


@pytest.mark.parametrize(
    ("theta", "reason"),
    [
        ("theta values=0,1,nan,3", "NaN"),
        ("theta 100 step=0", "constant"),
        ("theta values=0,50,3,90,7,20,11", "neither monotonic nor back-and-forth"),
    ],
)
def test_12_theta_that_makes_no_scan_refuses_the_start(rig, theta, reason):
    rig.detector.do(theta)
    refused(rig, reason)
