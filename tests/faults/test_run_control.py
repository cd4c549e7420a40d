"""Faults 18, 29 and 30: a failing engine, starts and aborts at the wrong time, signals."""

import resource
import signal
import time
from pathlib import Path

import pytest
from support.processes import Ioc, wait_for
from support.rig import SMALL_SCAN


def test_18_exception_in_the_engine_is_a_fault_and_a_new_start_works(rig):
    token = rig.run()
    rig.send(2, 3)
    pid = rig.ioc.process.pid
    # no more memory to be had: the ring that the new angles want can't be allocated
    unlimited = resource.prlimit(pid, resource.RLIMIT_AS)
    used = int(Path(f"/proc/{pid}/statm").read_text().split()[0]) * resource.getpagesize()
    resource.prlimit(pid, resource.RLIMIT_AS, (used + (300 << 20), unlimited[1]))
    try:
        rig.detector.do("theta 400000 step=0.00045")
        rig.ioc.wait_status("waiting for the first projection")
        rig.send(4, 5, 6)
        rig.ioc.wait_status("Fault", 20)
    finally:
        resource.prlimit(pid, resource.RLIMIT_AS, unlimited)
    assert rig.ioc.ca.put_done(token)
    assert rig.ioc.get("StartRecon") == 0
    rig.ioc.wait_value("ServerRunning", 0, 6)
    assert rig.ioc.slices.get(rig.ioc.recon)[0].size
    rig.scan()
    rig.run()
    rig.ioc.wait_value("ServerRunning", 1, 5)


def test_29_start_twice_is_one_run_and_both_puts_complete(rig):
    first = rig.run()
    second = rig.ioc.start()
    rig.send(2, 3)
    rig.wait_received(3)
    assert not rig.ioc.ca.put_done(first)
    rig.abort()
    wait_for(lambda: rig.ioc.ca.put_done(first) and rig.ioc.ca.put_done(second), 5)


def test_29_abort_while_idle_does_nothing(rig):
    rig.ioc.put("AbortRecon", 1, wait=True)
    assert rig.ioc.get("AbortRecon") == 0
    rig.run()


def test_29_abort_while_arming_completes_the_put_at_once(rig):
    token = rig.start()
    rig.ioc.put("AbortRecon", 1)
    wait_for(lambda: rig.ioc.ca.put_done(token), 3)
    assert rig.ioc.get("StartRecon") == 0


def test_29_start_right_behind_an_abort_is_a_new_run(rig):
    first = rig.run()
    rig.ioc.put("AbortRecon", 1)
    second = rig.ioc.start()
    wait_for(lambda: rig.ioc.ca.put_done(first), 5)
    rig.ioc.wait_status("waiting for the first projection")
    rig.send(2)
    rig.ioc.wait_status("1 of 60")
    assert not rig.ioc.ca.put_done(second)


def test_29_no_thread_is_left_behind(rig):
    def threads():
        status = Path(f"/proc/{rig.ioc.process.pid}/status").read_text()
        return int(status.split("Threads:")[1].split()[0])

    for _ in range(2):
        rig.run()
        rig.abort()
    before = threads()
    for _ in range(8):
        rig.scan()
        rig.run()
        rig.abort()
    assert threads() <= before + 2


def test_a_name_that_another_server_has_is_an_alarm_until_another_is_put(rig):
    def severity():
        return rig.ioc.ca.info(f"{rig.ioc.prefix}ReconPVAName")["severity"]

    served = rig.ioc.get("ReconPVAName", True)
    try:
        rig.ioc.put("ReconPVAName", "T:Image")
        wait_for(lambda: severity() == 2, 5, "the alarm")
    finally:
        rig.ioc.put("ReconPVAName", served)
    wait_for(lambda: severity() == 0, 5, "the end of the alarm")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_30_signals_end_a_run_cleanly_and_settings_are_there_after_a_restart(
    rig, rig_folder, number
):
    rig.run()
    rig.send(2, 3)
    settings = {"OrthoZ": int(number), "Center": 21.625, "FilterType": "Ramp"}
    before = {record: rig.ioc.get(record, as_string=True) for record in settings}
    try:
        for record, value in settings.items():
            rig.ioc.put(record, value, wait=True)
        began = time.monotonic()
        rig.ioc.signal(number)
        assert rig.ioc.wait(6) == 0
        assert time.monotonic() - began < 5
        saved = (rig_folder / "autosave" / "auto_settings.sav").read_text()
        assert f"sys:TomoStream:OrthoZ {int(number)}\n" in saved
        assert saved.rstrip().endswith("<END>")
    finally:
        rig.ioc.close()
        rig.start_ioc()
    assert rig.ioc.get("OrthoZ") == int(number)
    assert rig.ioc.get("Center") == 21.625
    assert rig.ioc.get("FilterType", True) == "Ramp"
    for record, value in before.items():
        rig.ioc.put(record, value, wait=True)


@pytest.mark.parametrize("line", ["", "Serving", "Ready"])
def test_30_sigterm_while_starting_ends_cleanly(tmp_path, line):
    ioc = Ioc(tmp_path, "--simulate", SMALL_SCAN)
    try:
        ioc.expect("Starting the simulated scan")
        if line:
            ioc.expect(line)
        ioc.signal(signal.SIGTERM)
        assert ioc.wait(6) == 0
        assert ioc.lines[-1] == "Ended"
    finally:
        ioc.close()
