"""A change of lens through the whole product: C records of MCTOptics and ROI plugin, motors, PVA.

LensSelect is put by libca; positions, records and slices are read by clients that are not ours.
"""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
from support.optics import NAMES, Optics
from support.ports import environment
from support.processes import CaClient, wait_for
from support.rig import ANGLES, COLS, ROWS, Rig

#: from the middle, in pixels: OrthoX, OrthoY, OrthoZ
OFF = (10, -6, 4)
MOTORS, SPEED = ("m1", "m17", "m18", "m3"), 20
PIXEL_MM = 3.45e-3 / 10 * 2  # detector pixel / objective x BinX of the ROI plugin


class Beamline:
    """Detector, tomoScan, motors, MCTOptics and the IOC, for all tests here."""

    def __init__(self, folder):
        self.folder = folder
        with contextlib.ExitStack() as parts:  # those that are there end when another can't start
            self.optics = Optics("--sample-offset", "0.05", speed=SPEED)
            parts.callback(self.optics.close)
            self.optics.mct.do("set BinX 2")
            self.rig = Rig(folder, "--lens-timeout", "6", others=self.optics.reach)
            parts.callback(self.rig.close)
            self.world = CaClient(environment(reach=self.optics.reach))
            parts.callback(self.world.close)
            self._parts = parts.pop_all()
        self.ioc = self.rig.ioc
        self.next_id = 1

    def at_home(self, names):
        """No run is on, the lens is the first one, and all motors are where they began."""
        if self.ioc.get("StartRecon"):
            self.rig.abort()
        self.rig.detector.close()
        self.rig.start_detector()
        self.next_id = 1
        for motor in MOTORS:
            self.optics.motors.do(f"speed {motor} {SPEED}")
        if self.world.get("M:MCT:LensSelect"):
            self.wait_done()
            self.select(0)
            wait_for(lambda: self.world.get("M:MCT:CameraObjective") == "10", 10, "the first lens")
            self.wait_done()
        for motor in MOTORS:
            self.world.put(f"M:{motor}", 0, wait=True)
            wait_for(lambda motor=motor: self.world.get(f"M:{motor}.RBV") == 0, 10, motor)
        self.ioc.put("PixelSize", 0, wait=True)
        for record, name in names.items():
            self.ioc.put(record, name, wait=True)

    def begin(self, sync):
        """A run with the slices away from the middle, and some frames."""
        self.ioc.put("LensChangeSync", sync, wait=True)
        for axis, off, n in zip("XYZ", OFF, (COLS, COLS, ROWS), strict=True):
            self.ioc.put(f"Ortho{axis}", n // 2 + off, wait=True)
        self.rig.scan()
        token = self.rig.start()
        # every name has answered by then, or is said not to
        self.world.get("M:MCT:LensSelect")
        self.send(3)
        self.ioc.wait_status("3 of")
        return token

    def send(self, count):
        """Frames with ids that go on."""
        self.rig.send(*range(self.next_id, self.next_id + count))
        self.next_id += count

    def select(self, index):
        self.world.put("M:MCT:LensSelect", index)

    def wait_done(self):
        wait_for(lambda: self.world.get("M:MCT:MCTStatus", True) == "Done", 10, "MCTOptics")

    def place(self):
        return tuple(self.ioc.get(f"Ortho{axis}") for axis in "XYZ")

    def positions(self):
        return tuple(self.world.get(f"M:{motor}.RBV") for motor in ("m17", "m18", "m3"))

    def severity(self, record):
        return self.ioc.ca.info(self.ioc.prefix + record)["severity"]

    def wait_severity(self, record, severity):
        wait_for(lambda: self.severity(record) == severity, 20, f"{record} in alarm {severity}")

    def wait_rearming(self):
        self.ioc.wait_status("Arming: waiting for the first projection", 30)

    def close(self):
        self._parts.close()


@pytest.fixture(scope="module")
def shared_beamline(tmp_path_factory):
    made = Beamline(tmp_path_factory.mktemp("beamline"))
    yield made
    made.close()


@pytest.fixture
def beamline(shared_beamline):
    """Makes it ready for a test, with these names of PVs instead of those that are right."""

    def ready(**names):
        shared_beamline.at_home({**NAMES, **names})
        return shared_beamline

    return ready


def middle():
    return COLS // 2, COLS // 2, ROWS // 2


def test_yes_moves_the_sample_and_the_slices_and_goes_on_with_a_new_ring(beamline):
    b = beamline()
    token = b.begin("Yes")
    b.optics.motors.do("speed m1 3")
    wait_for(lambda: b.severity("LensChangeSync") == 0 and "does not" not in b.ioc.status())
    b.select(1)
    b.ioc.wait_status("Paused: lens 5x")
    b.send(4)
    b.rig.wait_received(7)
    assert b.rig.counts("Skipped", "Missed", "Dropped", "Rejected") == (4, 0, 0, 0)
    assert (b.ioc.get("ServerRunning"), b.ioc.get("StartRecon"), b.ioc.get("Status")) == (1, 1, 1)
    b.ioc.wait_status("waiting for M:m1")
    b.wait_rearming()
    x, y, z = (PIXEL_MM * off for off in OFF)
    assert b.positions() == pytest.approx((x, -y, z + 0.05))  # + MCTOptics' own offset
    assert b.world.get("M:m1.RBV") == 10
    assert b.place() == middle()
    assert b.ioc.get("PixelSize") == pytest.approx(3.45 / 5 * 2)
    assert [b.severity(record) for record in ("LensChangeSync", *NAMES)] == [0] * 6

    b.send(1)
    b.ioc.wait_status("1 of 60 angles so far")
    assert "dark and flat of the lens before: take new ones" in b.ioc.status()
    # new fields are used at once, with no further frame
    before = b.ioc.slices.get(b.ioc.recon + "Z")[0]
    flat = np.broadcast_to(200.0 + 4 * np.arange(COLS), (ROWS, COLS))
    for kind, field in {"dark": np.zeros_like(flat), "flat": flat}.items():
        np.save(b.folder / f"{kind}.npy", field.astype(np.float32))
        b.rig.detector.do(f"{kind} file={b.folder / kind}.npy")
    wait_for(lambda: "of the lens before" not in b.ioc.status(), 10, "the new fields")
    wait_for(
        lambda: not np.allclose(b.ioc.slices.get(b.ioc.recon + "Z")[0], before), 10, "new slices"
    )
    assert b.rig.counts("Missed", "Dropped", "Rejected") == (0, 0, 0)
    assert not b.ioc.ca.put_done(token)
    b.rig.abort()
    wait_for(lambda: b.ioc.ca.put_done(token), 10, "the busy put")


def test_no_pauses_waits_and_goes_on(beamline):
    b = beamline()
    b.begin("No")
    place = b.place()
    b.select(2)
    b.ioc.wait_status("Paused")
    b.wait_rearming()
    assert b.world.get("M:m1.RBV") == 20
    assert b.positions() == pytest.approx((0, 0, 0.05))  # MCTOptics' own offset alone
    assert b.place() == place
    assert b.ioc.get("PixelSize") == 0
    b.send(ANGLES)
    wait_for(lambda: b.ioc.status().startswith("Running"), 20, "the run")
    wait_for(lambda: "so far" not in b.ioc.status(), 20, "a full ring")


def test_wrong_and_missing_names_are_alarms_and_sentences(beamline):
    b = beamline(SampleTomo0degPVName="M:nobody", SampleYPVName="", RoiPluginPVPrefix="M:ROI7:")
    b.begin("No")
    assert b.severity("SampleYPVName") == 0  # not needed
    b.ioc.put("LensChangeSync", "Yes", wait=True)
    for record, severity in {
        "SampleTomo0degPVName": 3,
        "SampleYPVName": 2,
        "RoiPluginPVPrefix": 3,
        "LensChangeSync": 1,
    }.items():
        b.wait_severity(record, severity)
    b.ioc.wait_status("M:nobody does not answer")
    assert "SampleYPVName is empty" in b.ioc.status()
    place = b.place()
    b.select(1)
    b.ioc.wait_status("Paused")
    b.wait_rearming()
    assert b.place() == place
    assert b.positions() == pytest.approx((0, 0, 0.05))
    b.send(2)
    b.ioc.wait_status("2 of 60")
    b.rig.abort()
    assert [b.severity(record) for record in ("LensChangeSync", *NAMES)] == [0] * 6


def test_without_mctoptics_the_run_goes_on_and_says_so(beamline):
    b = beamline(MctOpticsPVPrefix="M:gone:")
    b.begin("Yes")
    b.wait_severity("MctOpticsPVPrefix", 3)
    b.ioc.wait_status("M:gone:LensSelect does not answer: is MCTOptics running?")
    b.send(5)
    b.ioc.wait_status("8 of 60")


def test_abort_in_the_middle_and_a_change_while_idle(beamline):
    b = beamline()
    token = b.begin("Yes")
    b.optics.motors.do("speed m1 0")
    b.select(1)
    b.ioc.wait_status("waiting for M:m1")
    b.rig.abort()
    wait_for(lambda: b.ioc.ca.put_done(token), 5, "the busy put")
    assert b.ioc.status().startswith("Stopped")
    b.optics.motors.do("speed m1 50")
    wait_for(lambda: b.world.get("M:m1.DMOV") == 1 and b.world.get("M:m1.RBV") == 10, 10)
    b.wait_done()

    positions, place = b.positions(), b.place()
    b.select(2)
    wait_for(lambda: b.world.get("M:m1.RBV") == 20, 10, "the lens, with no run")
    assert b.positions()[:2] == positions[:2]
    assert b.place() == place
    assert b.ioc.status().startswith("Stopped")


# last: MCTOptics is not started again
def test_optics_that_vanish_and_a_motor_that_never_arrives_end_in_their_time(beamline):
    b = beamline()
    b.begin("Yes")
    b.optics.motors.do("speed m18 0")
    b.select(1)
    b.ioc.wait_status("moving the sample")
    b.optics.mct.say("stop")  # MCTOptics and the ROI plugin are away in the middle of it
    b.wait_severity("MctOpticsPVPrefix", 3)
    b.wait_rearming()
    b.wait_severity("SampleTomo90degPVName", 2)
    x, y, z = b.place()
    assert (x, z) == (COLS // 2, ROWS // 2)
    assert y == COLS // 2 + OFF[1]  # its motor has not arrived
    b.send(2)
    b.ioc.wait_status("2 of 60")
