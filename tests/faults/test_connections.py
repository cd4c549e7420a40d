"""Faults 13 to 15: the detector or tomoScan goes away, comes back, or falls silent."""

import numpy as np
from support.processes import wait_for

INVALID, MINOR = 3, 1


def severity(rig, record):
    return rig.ioc.ca.info(rig.ioc.prefix + record)["severity"]


def test_13_and_14_detector_that_restarts_is_found_again(rig):
    rig.run()
    rig.send(*range(2, 21))
    rig.wait_received(20)
    wait_for(lambda: rig.ioc.slices.get(rig.ioc.recon + "Z")[1]["attributes"]["NewestId"] == 20, 5)
    before, _ = rig.ioc.slices.get(rig.ioc.recon + "Z")
    rig.detector.process.kill()
    rig.detector.close()
    wait_for(lambda: severity(rig, "FrameRate") == INVALID, 20, "the alarm of a lost channel")
    after, facts = rig.ioc.slices.get(rig.ioc.recon + "Z")
    np.testing.assert_array_equal(after, before)
    assert facts["alarm"]["severity"] == INVALID
    assert rig.ioc.get("StartRecon") == 1
    rig.start_detector()
    rig.scan()
    wait_for(lambda: "disconnected" not in rig.ioc.status(), 40, "the channel to be back")
    rig.send(*range(21, 31))
    wait_for(lambda: severity(rig, "FrameRate") == 0, 10)
    rig.wait_received(30)
    assert rig.counts("Missed", "Duplicate", "Rejected") == (0, 0, 0)
    assert rig.ioc.slices.get(rig.ioc.recon + "Z")[1]["alarm"]["severity"] == 0


def test_13_detector_that_comes_back_with_another_size_rearms(rig):
    rig.run()
    rig.send(2, 3)
    rig.detector.close()
    rig.start_detector()
    rig.detector.do(f"theta 600 step={180 / 60}")
    wait_for(lambda: severity(rig, "FrameRate") == 0, 40)
    rig.send(*range(4, 9), rows=16, cols=24)
    rig.ioc.wait_value("OrthoZ", 8)
    rig.abort()
    for record, value in {"Center": 24, "OrthoX": 24, "OrthoY": 24, "OrthoZ": 16}.items():
        rig.ioc.put(record, value, wait=True)


def test_14_tomoscan_that_goes_away_leaves_the_run_and_is_found_again(rig):
    rig.run()
    rig.send(2)
    rig.tomoscan.process.kill()
    rig.tomoscan.close()
    rig.send(3, 4)
    rig.wait_received(4)
    assert rig.ioc.get("StartRecon") == 1
    rig.start_tomoscan()
    rig.tomoscan.do("frame_type 1")
    rig.ioc.wait_status("FrameType is FlatField", 40)
    rig.send(5, 6)
    rig.wait_received(6)
    rig.tomoscan.do("frame_type 0")
    wait_for(lambda: "FrameType" not in rig.ioc.status(), 10)
    rig.send(7)
    rig.wait_received(7)
    assert rig.counts("Skipped", "Missed") == (2, 0)


def test_15_silence_while_connected_is_named_and_parameters_still_work(rig):
    rig.run()
    rig.send(*range(2, 11))
    rig.ioc.wait_status("no frame for 5 s", 15)
    assert severity(rig, "FrameRate") == MINOR
    rig.ioc.put("OrthoZ", 10, wait=True)
    wait_for(lambda: rig.ioc.slices.get(rig.ioc.recon + "Z")[1]["attributes"]["OrthoZ"] == 10, 3)
    rig.send(11)
    wait_for(lambda: severity(rig, "FrameRate") == 0, 5)
    assert rig.ioc.get("ServerRunning") == 1
    rig.ioc.put("OrthoZ", 16, wait=True)
