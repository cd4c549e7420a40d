"""CaLensOptics with real records: what is read, moved, waited for and found wrong."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from support.optics import NAMES, Optics
from support.ports import environment
from support.processes import CaClient, wait_for

from tomostream_ioc.epics.lens import CaLensOptics
from tomostream_ioc.model.control import LensNames
from tomostream_ioc.model.lens import Crossing, LensFault, LensOutcome

PIXEL_MM = 0.345e-3  # 3.45 um / 10
CROSSING = Crossing(1000, -2000, 3000)


def lens_names(**changes: str) -> LensNames:
    names = {
        "mct_optics_prefix": NAMES["MctOpticsPVPrefix"],
        "sample_tomo_0deg": NAMES["SampleTomo0degPVName"],
        "sample_tomo_90deg": NAMES["SampleTomo90degPVName"],
        "sample_y": NAMES["SampleYPVName"],
        "roi_plugin_prefix": NAMES["RoiPluginPVPrefix"],
    }
    return LensNames(**{**names, **changes})


class Handler:
    def __init__(self) -> None:
        self.changes: list[str] = []
        self.steps: list[str] = []
        self.outcomes: list[LensOutcome] = []
        self.faults: tuple[LensFault, ...] = ()

    def on_lens_change(self, lens: str) -> None:
        self.changes.append(lens)

    def on_lens_step(self, text: str) -> None:
        self.steps.append(text)

    def on_lens_done(self, outcome: LensOutcome) -> None:
        self.outcomes.append(outcome)

    def on_lens_faults(self, faults: tuple[LensFault, ...]) -> None:
        self.faults = faults


class Bench:
    """The optics, a client of ours that watches them, and a libca client that looks."""

    def __init__(self, optics: Optics):
        self.optics = optics
        self.handler = Handler()
        self.client: CaLensOptics | None = None
        self.ca = CaClient(environment(reach=optics.reach))

    def open(self, motion_s: float = 20.0, **names: str) -> None:
        self.client = CaLensOptics(motion_s)
        self.client.open(lens_names(**names), self.handler)

    def position(self, motor: str, field: str = "RBV") -> float:
        return float(self.ca.get(f"M:{motor}.{field}"))

    def wait_told(self) -> None:
        """The client knows the lens, and nothing is wrong."""
        wait_for(lambda: "lens ca" in [thread.name for thread in threading.enumerate()])
        watch = self.client._watch if self.client is not None else None
        assert watch is not None
        state = wait_for(lambda: getattr(watch, "_state", None), what="the channels")
        names = ("DetectorPixelSize", "CameraObjective", "LensSelect")

        def told() -> bool:
            channels = [state._mct.get(name) for name in names]
            known = all(
                channel is not None and channel.value is not None and not channel.reconnected
                for channel in channels
            )
            motors = all(motor.setpoint.connected for motor in state.motors.values())
            roi = state._roi_binning
            return bool(
                known
                and motors
                and (roi is None or roi.value is not None)
                and (state.lens_motor is None or state.lens_motor.value is not None)
            )

        wait_for(told, 15.0, "values of all channels")

    def select(self, index: int) -> None:
        known = len(self.handler.changes)
        self.ca.put("M:MCT:LensSelect", index)
        wait_for(lambda: len(self.handler.changes) > known, what="the change")

    def follow(self, crossing: Crossing | None, limit_s: float = 20.0) -> LensOutcome:
        assert self.client is not None
        known = len(self.handler.outcomes)
        self.client.follow(crossing)
        try:
            wait_for(lambda: len(self.handler.outcomes) > known, limit_s)
        except AssertionError:
            raise AssertionError(f"no end after {self.handler.steps}") from None
        return self.handler.outcomes[-1]

    def close(self) -> None:
        if self.client is not None:
            self.client.close()
        self.ca.close()
        self.optics.close()


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Bench]]:
    made: list[Bench] = []

    def make(*options: str, speed: float = 20.0) -> Bench:
        made.append(Bench(Optics(*options, speed=speed)))
        for name in os.environ:
            if name.startswith("EPICS_"):
                monkeypatch.delenv(name)
        for name, value in environment(reach=made[-1].optics.reach).items():
            if name.startswith("EPICS_"):
                monkeypatch.setenv(name, value)
        return made[-1]

    yield make
    for each in made:
        each.close()
    assert "lens ca" not in [thread.name for thread in threading.enumerate()]


def test_sample_and_lens_are_followed_and_the_new_pixel_size_is_told(bench):
    b = bench("--sample-offset", "0.25")
    b.optics.mct.do("set BinX 2")
    b.open()
    b.wait_told()
    assert b.handler.changes == []  # the first value is no change
    b.select(1)
    outcome = b.follow(CROSSING)
    assert outcome.faults == ()
    assert outcome.lens == "lens 5x"
    # frames of the old lens (10x) binned by 2, and MCTOptics' own offset is kept
    moves = {"x": 2 * PIXEL_MM * 1000, "y": 2 * PIXEL_MM * 2000, "z": 2 * PIXEL_MM * 3000}
    assert outcome.moved_mm == pytest.approx(moves)
    assert b.position("m17") == pytest.approx(moves["x"])
    assert b.position("m18") == pytest.approx(moves["y"])
    assert b.position("m3") == pytest.approx(moves["z"] + 0.25)
    assert b.position("m1") == 10  # the lens is there
    assert outcome.pixel_um == pytest.approx(3.45 / 5 * 2)
    assert [step for step in b.handler.steps if "moving the sample" in step]
    assert b.handler.steps[-1] == "lens 5x: waiting for M:m1"


def test_without_a_crossing_nothing_but_the_lens_is_waited_for(bench):
    b = bench(speed=4.0)
    b.open()
    b.wait_told()
    b.select(2)
    outcome = b.follow(None)
    assert (outcome.faults, outcome.moved_mm) == ((), {})
    assert b.position("m1") == 20
    assert [b.position(motor) for motor in ("m17", "m18", "m3")] == [0, 0, 0]


def test_camera_binning_of_mctoptics_counts(bench):
    b = bench()
    b.optics.mct.do("set CameraBinning 2")
    b.open()
    b.wait_told()
    b.select(1)
    assert b.follow(CROSSING).pixel_um == pytest.approx(3.45 / 5 * 4)
    assert b.position("m17") == pytest.approx(4 * PIXEL_MM * 1000)


def test_a_second_lens_meanwhile_makes_the_wait_longer_and_moves_the_sample_once(bench):
    b = bench("--no-status", speed=5.0)
    b.open()
    b.wait_told()
    b.select(2)
    assert b.client is not None
    b.client.follow(CROSSING)
    wait_for(lambda: b.position("m1", "DMOV") == 0, what="the lens on its way")
    b.ca.put("M:MCT:LensSelect", 1)
    wait_for(lambda: b.handler.outcomes, 30, "the end")
    assert b.handler.changes == ["lens 2"]
    assert b.handler.outcomes[0].lens == "lens 5x"
    assert b.position("m1") == 10
    assert b.position("m17") == pytest.approx(PIXEL_MM * 1000)
    assert len([step for step in b.handler.steps if "moving the sample" in step]) == 1


def test_sample_beyond_a_soft_limit_is_not_moved_at_all(bench):
    b = bench()
    b.optics.motors.do("limits m18 -0.1 0.1")
    b.open()
    b.wait_told()
    wait_for(lambda: b.position("m18", "HLM") == 0.1)
    b.select(1)
    outcome = b.follow(CROSSING)
    assert outcome.moved_mm == {}
    (fault,) = outcome.faults
    assert fault.record == "SampleTomo90degPVName"
    assert "M:m18 would have to go to 0.6900, its limits are -0.1 to 0.1" in fault.message
    assert [b.position(motor, "VAL") for motor in ("m17", "m18", "m3")] == [0, 0, 0]
    assert b.position("m1") == 10


def test_a_motor_that_never_arrives_ends_in_its_time(bench):
    b = bench()
    b.optics.motors.do("speed m17 0")
    b.open(motion_s=3.0)
    b.wait_told()
    b.select(1)
    outcome = b.follow(CROSSING)
    assert sorted(outcome.moved_mm or {}) == ["y", "z"]
    (fault,) = outcome.faults
    assert (fault.record, fault.only_sync) == ("SampleTomo0degPVName", True)
    assert "M:m17" in fault.message


def test_a_lens_that_never_arrives_ends_in_its_time(bench):
    b = bench()
    b.optics.motors.do("speed m1 0")
    b.open(motion_s=3.0)
    b.wait_told()
    b.select(1)
    outcome = b.follow(None)
    (fault,) = outcome.faults
    assert (fault.record, fault.only_sync) == ("MctOpticsPVPrefix", False)
    assert "M:m1.DMOV: the lens is not there after 3 s" in fault.message


def test_an_objective_that_is_unknown_keeps_the_sample_where_it_is(bench):
    b = bench()
    b.optics.mct.do("set CameraObjective Unknown")
    b.open()
    b.wait_told()
    b.select(1)
    outcome = b.follow(CROSSING)
    assert outcome.moved_mm == {}
    (fault,) = outcome.faults
    assert "The sample stays: CameraObjective is 'Unknown'" in fault.message
    assert outcome.pixel_um == pytest.approx(0.69)  # told by MCTOptics afterwards


def test_names_that_do_not_answer_are_told_each_for_its_record(bench):
    b = bench()
    b.open(sample_tomo_0deg="M:nobody", sample_y="", roi_plugin_prefix="M:ROI9:")
    wait_for(lambda: len(b.handler.faults) == 3, 15, "three faults")
    told = {fault.record: fault.message for fault in b.handler.faults}
    assert "M:nobody does not answer" in told["SampleTomo0degPVName"]
    assert "SampleYPVName is empty" in told["SampleYPVName"]
    assert "M:ROI9:BinX does not answer" in told["RoiPluginPVPrefix"]
    assert all(fault.only_sync for fault in b.handler.faults)
    b.select(1)
    outcome = b.follow(CROSSING)
    assert outcome.moved_mm == {}
    assert b.position("m1") == 10
    assert b.position("m18", "VAL") == 0


def test_wrong_prefix_of_mctoptics_is_told_in_both_settings(bench):
    b = bench()
    b.open(mct_optics_prefix="M:nobody:")
    wait_for(lambda: b.handler.faults, 15, "a fault")
    fault = b.handler.faults[0]
    assert (fault.record, fault.only_sync) == ("MctOpticsPVPrefix", False)
    assert "M:nobody:LensSelect does not answer: is MCTOptics running?" in fault.message


def test_lens_motor_without_done_moving_is_replaced_by_the_status(bench):
    b = bench("--lens-motor", "M:MCT:LensMotorPVName")  # no motor: it has no DMOV
    b.open()
    b.wait_told()
    wait_for(lambda: b.handler.faults, 15, "a fault")
    assert "LensMotorPVName.DMOV does not answer" in b.handler.faults[0].message


def test_mctoptics_that_dies_and_comes_back_is_followed_again(bench):
    b = bench()
    b.open()
    b.wait_told()
    b.optics.mct.say("stop")
    b.optics.mct.wait()
    wait_for(lambda: b.handler.faults, 15, "the loss")
    assert "does not answer" in b.handler.faults[0].message
    b.optics.mct.close()
    b.optics.start_mct()
    wait_for(lambda: not b.handler.faults, 40, "the return")
    b.wait_told()
    b.select(1)
    assert b.follow(CROSSING).faults == ()


def test_closing_in_the_middle_is_at_once_and_calls_nobody_any_more(bench):
    b = bench()
    b.optics.motors.do("speed m1 0")
    b.open(motion_s=600)
    b.wait_told()
    b.select(1)
    assert b.client is not None
    b.client.follow(CROSSING)
    wait_for(lambda: "waiting for M:m1" in " ".join(b.handler.steps), 15, "the wait")
    began = time.monotonic()
    b.client.close()
    assert time.monotonic() - began < 3
    steps = list(b.handler.steps)
    b.ca.put("M:MCT:LensSelect", 2)
    assert (b.handler.steps, b.handler.outcomes) == (steps, [])


def test_without_a_prefix_no_thread_is_started(bench):
    b = bench()
    b.open(mct_optics_prefix=" ")
    assert "lens ca" not in [thread.name for thread in threading.enumerate()]
