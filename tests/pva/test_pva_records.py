"""Records over PVA: as QSRV of a C IOC serves them, and one with what CA clients see."""

from __future__ import annotations

import json
import logging
import re
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ca_ioc import MACROS, PREFIX, Client
from p4p.client.thread import RemoteError
from records_ioc import PvaClient, RecordsIoc
from support.c_database import c_ioc
from support.ports import ServerPorts, environment
from support.processes import Child, Ioc, wait_for

from tomostream_ioc.epics.access import read_access_file
from tomostream_ioc.epics.operation_records import OperationRecords
from tomostream_ioc.epics.pva_records import PvaRecords
from tomostream_ioc.epics.save_declarations import AutosaveRecords
from tomostream_ioc.model.control import Alarm, Severity

HERE = Path(__file__).parent
# what the run shows of itself: not as the database has it
SHOWN = {
    *("ReconStatus", "ReconTime", "BufferSize", "FrameRate", "ReconRate", "Latency"),
    *("CenterFound", "CenterConfidence", "MemoryPolicy", "MemoryUsed", "BadPixels"),
    *(f"Frames{what}" for what in ("Received", "Rejected", "Missed", "Duplicate", "Disordered")),
    *("FramesDropped", "FramesSkipped", "Watchdog", "ServerRunning"),
    "Crystal:Status",
    "CameraPVPrefix",  # this group has no macro for it
    *(prop.pvspec.name for prop in OperationRecords._pvs_.values()),
    *(prop.pvspec.name for prop in AutosaveRecords._pvs_.values()),
}


@pytest.fixture
def ioc(ports: ServerPorts, monkeypatch: pytest.MonkeyPatch) -> Iterator[RecordsIoc]:
    for name, value in environment(serve=ports, reach=(ports,)).items():
        if name.startswith("EPICS_"):
            monkeypatch.setenv(name, value)
    made = RecordsIoc()
    made.start()
    yield made
    made.close()


@pytest.fixture
def pva(ioc: RecordsIoc) -> Iterator[PvaClient]:
    client = PvaClient()
    yield client
    client.close()


@pytest.fixture
def ca(ioc: RecordsIoc) -> Client:
    return ioc.client()


# --- as a C IOC -------------------------------------------------------------------------------


def test_every_record_has_the_structure_and_metadata_of_the_c_ioc(
    ioc: RecordsIoc, pva: PvaClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with c_ioc(tmp_path, MACROS) as c_ports:
        monkeypatch.setenv("EPICS_PVA_ADDR_LIST", f"127.0.0.1:{c_ports.pva_search}")
        c_pva = PvaClient()
        names = list(ioc.group.records)
        assert len(names) > 50
        different = {}
        for name in names:
            ours, theirs = _shown(pva, name), _shown(c_pva, name)
            if ours != theirs:
                different[name] = [
                    pair for pair in zip(ours, theirs, strict=True) if pair[0] != pair[1]
                ]
        assert not different
        for field in ("Center.DESC", "Center.PREC", "OrthoX.SCAN", "Dezinger.RVAL", "Center.DESC$"):
            assert pva.get(field).type().aspy() == c_pva.get(field).type().aspy(), field
            assert str(pva.get(field)["value"]) == str(c_pva.get(field)["value"]), field
        c_pva.close()


def _shown(client: PvaClient, name: str) -> list[Any]:
    """Type, and all that does not depend on the moment; NaN compares as text."""
    value = client.get(name)
    content = dict(value.tolist())
    fields = ["display", "control", "valueAlarm"]
    if name not in SHOWN:
        fields += ["value", "alarm"]
    return [value.type().aspy(), *((field, str(content.get(field))) for field in fields)]


def test_time_alarm_and_what_changed_are_posted(pva: PvaClient) -> None:
    seen = pva.monitor("Center")
    assert seen[0]["timeStamp.secondsPastEpoch"] == 631152000  # EPICS' epoch: never written
    assert seen[0]["alarm"].tolist() == [("severity", 3), ("status", 2), ("message", "UDF")]
    before_s = time.time()
    pva.put("Center", 1234.5)
    wait_for(lambda: len(seen) == 2, what="the post")
    stamp_s = seen[1]["timeStamp.secondsPastEpoch"] + 1e-9 * seen[1]["timeStamp.nanoseconds"]
    assert before_s - 1e-3 <= stamp_s <= time.time()
    assert seen[1]["value"] == 1234.5
    assert seen[1]["alarm"].tolist() == [("severity", 0), ("status", 0), ("message", "")]
    assert seen[1].changed("alarm")
    assert not seen[1].changed("display")
    pva.put("Center", 1235)
    wait_for(lambda: len(seen) == 3, what="the second post")
    assert not seen[2].changed("alarm")


def test_a_changed_field_is_posted_with_the_value_it_describes(pva: PvaClient, ca: Client) -> None:
    seen, units = pva.monitor("Center"), pva.monitor("Center.EGU")
    ca.put("Center.EGU", "mm")
    wait_for(lambda: seen[-1]["display.units"] == "mm", what="the units")
    wait_for(lambda: units[-1]["value"] == "mm", what="the field")
    pva.put("Center.DESC", "the axis")
    assert ca.get("Center.DESC") == "the axis"
    wait_for(lambda: seen[-1]["display.description"] == "the axis", what="the description")
    assert pva.get("Center.VAL")["display.description"] == "the axis"


# --- one value for all clients -------------------------------------------------------------------


def test_puts_over_ca_and_pva_are_seen_once_on_both(pva: PvaClient, ca: Client) -> None:
    seen, number = pva.monitor("Center"), ca.monitor("Center")
    ca.seen(number, at_least=1)
    for value in (10.0, 20.0, 30.0, 40.0):
        if value % 20:
            ca.put("Center", value, "DOUBLE")
        else:
            pva.put("Center", value)
    pva.put("Center", 40.0)  # unchanged: not posted
    pva.put("Center", 50.0)
    wait_for(lambda: seen[-1]["value"] == 50, what="the last post")
    assert [value["value"] for value in seen] == [0, 10, 20, 30, 40, 50]
    assert ca.seen(number, at_least=6) == [0, 10, 20, 30, 40, 50]


def test_a_pva_put_reaches_the_run_as_a_ca_put_does(ioc: RecordsIoc, pva: PvaClient) -> None:
    pva.put("OrthoX", 77)
    pva.choose("FilterType", 2)
    params = ioc.run.of("set_params")[-1]
    assert (params.ortho_x, params.filter_type) == (77, "Ramp")
    pva.put("CenterTweakUp.PROC", 1)
    assert ioc.value("Center") == 3
    pva.put("CenterTweakUp", 5.0)
    assert ioc.value("Center") == 3  # as in C: VAL of a calcout processes nothing
    pva.put("CenterTweakUp", 5.0, options="process=true")
    assert ioc.value("Center") == 6


def test_what_the_run_shows_is_posted(ioc: RecordsIoc, pva: PvaClient) -> None:
    status, state = pva.monitor("ReconStatus"), pva.monitor("StartRecon")
    ioc.run.show(message="Grüße")
    wait_for(lambda: bytes(status[-1]["value"]).decode() == "Grüße", what="the status")
    pva.choose("StartRecon", 1)
    wait_for(lambda: state[-1]["value.index"] == 1, what="Acquire")
    assert state[-1]["alarm"].tolist() == [("severity", 1), ("status", 1), ("message", "STATE")]
    ioc.run.end()
    wait_for(lambda: state[-1]["value.index"] == 0, what="Done")
    assert state[-1]["alarm.severity"] == 0


def test_limits_that_follow_the_frames_are_posted(ioc: RecordsIoc, pva: PvaClient) -> None:
    seen = pva.monitor("OrthoZ")
    wait_for(lambda: seen and seen[-1]["display.limitHigh"] == 2448, what="the limits at first")
    ioc.run.show(frame_shape=(600, 4096))
    wait_for(lambda: seen[-1]["display.limitHigh"] == 599, what="the limits of the frames")
    assert seen[-1]["control.limitHigh"] == 599


def test_texts_are_utf_8_and_arrays_as_long_as_put(
    ioc: RecordsIoc, pva: PvaClient, ca: Client
) -> None:
    pva.put("TomoScanPVPrefix", "Probe µ:")
    assert pva.get("TomoScanPVPrefix")["value"] == "Probe µ:"
    assert ca.get("TomoScanPVPrefix") == "Probe µ:"
    ioc.run.show(message="Hi")  # the run's own sentence, or it would soon stand there again
    pva.put("ReconStatus", [72, 105])
    wait_for(lambda: ca.get("ReconStatus.NORD") == 2, what="two characters")
    assert ca.get("ReconStatus.NORD") == pva.get("ReconStatus.NORD")["value"]


def test_the_reason_of_an_alarm_is_posted_when_it_changes(ioc: RecordsIoc, pva: PvaClient) -> None:
    seen = pva.monitor("ReconStatus")
    for message in ("no dark field", "no flat field"):
        alarm = Alarm(Severity.MINOR, "SOFT", message)
        ioc.run.show(alarms={"ReconStatus": alarm})
        wait_for(lambda message=message: seen[-1]["alarm.message"] == message, what=message)
    assert (seen[-1]["alarm.severity"], seen[-1]["alarm.status"]) == (1, 3)


# --- refused -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "field", "options", "reason"),
    [
        ("Center", float("nan"), "value", "", "finite"),
        ("FilterType", 4, "value.index", "", "none of the choices"),
        ("FilterType", -1, "value.index", "", "none of the choices"),
        ("StartRecon", 2, "value.index", "", "none of the choices"),
        ("TomoScanPVPrefix", "x" * 40, "value", "", "longer than 39"),
        ("TomoScanPVPrefix", "a\nb", "value", "", "control characters"),
        ("ReconPVAName", " ", "value", "", "need a channel name"),
        ("ReconStatus", [65] * 257, "value", "", "longer than 256"),
        ("Center", 1, "alarm.severity", "", "only the value"),
        ("Center", 5.0, "value", "process=false", "process=false"),
        ("Center.NAME", "x", "value", "", "not writable"),
        ("Center.PREC", 3, "display.precision", "", "only the value"),
    ],
)
def test_a_refused_put_fails_with_the_reason_and_changes_nothing(
    ioc: RecordsIoc, pva: PvaClient, name: str, value: Any, field: str, options: str, reason: str
) -> None:
    before, asked = str(pva.get(name).tolist()), len(ioc.run.calls)
    with pytest.raises(RemoteError, match=reason):
        pva.put(name, value, field=field, options=options)
    if name != "ReconStatus":  # the run shows it as it is
        assert str(pva.get(name).tolist()) == before
    assert len(ioc.run.calls) == asked


def test_disp_holds_for_pva_too(pva: PvaClient, ca: Client) -> None:
    ca.put("OrthoX.DISP", 1)
    with pytest.raises(RemoteError, match="DISP"):
        pva.put("OrthoX", 5)
    pva.put("OrthoX.DISP", 0)
    pva.put("OrthoX", 5)
    assert ca.get("OrthoX") == 5


# --- put-callback --------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "end"), [("StartRecon", "end"), ("FindCenter", "end_search")])
def test_a_put_with_block_completes_when_the_work_has_ended(
    ioc: RecordsIoc, pva: PvaClient, name: str, end: str
) -> None:
    ended = threading.Event()
    put = threading.Thread(target=lambda: (pva.choose(name, 1, "block=true"), ended.set()))
    put.start()
    wait_for(lambda: ioc.value(name) == 1, what="the work")
    pva.put("OrthoX", 8)  # others are not held up
    pva.choose(name, 1)  # nor is a put that does not wait
    assert not ended.is_set()
    getattr(ioc.run, end)()
    put.join(10)
    assert ended.is_set()
    assert ioc.value(name) == 0


def test_a_client_that_goes_during_a_blocking_put_leaves_the_run(
    ioc: RecordsIoc, pva: PvaClient
) -> None:
    gone = PvaClient()
    with pytest.raises(TimeoutError):
        gone.choose("StartRecon", 1, "block=true", limit_s=0.5)
    gone.close()
    assert ioc.value("StartRecon") == 1
    ioc.run.end()
    wait_for(lambda: ioc.value("StartRecon") == 0, what="the end of the run")
    threading.Timer(0.2, ioc.run.end).start()
    pva.choose("StartRecon", 1, "block=true")
    assert ioc.run.runs == 2


def test_a_monitor_that_does_not_read_holds_nobody_up(ioc: RecordsIoc, pva: PvaClient) -> None:
    reading = threading.Event()
    seen: list[float] = []

    def slowly(value: Any) -> None:
        reading.wait(20)
        seen.append(value["value"])

    other = PvaClient()
    subscription = other.context.monitor(PREFIX + "Center", slowly)
    for value in range(1, 301):
        pva.put("Center", value)
    assert ioc.value("Center") == 300
    reading.set()
    wait_for(lambda: seen and seen[-1] == 300, what="the newest value")
    assert len(seen) < 150  # the rest was merged, not stored
    subscription.close()
    other.close()


# --- the program ---------------------------------------------------------------------------------


class PvapyClient(Child):
    """pvapy in a process of its own, with the records of one IOC."""

    def __init__(self, ioc: Ioc):
        super().__init__([str(HERE / "pvapy_records.py")], environment(reach=(ioc.ports,)))
        self._prefix = ioc.prefix
        self.expect("ready", 30.0)

    def ask(self, operation: str, record: str, value: Any = None) -> Any:
        self.say(json.dumps([operation, self._prefix + record, value]))
        answer = json.loads(self.expect("{", 20.0))
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer["answer"]


def test_pvapy_reads_puts_and_monitors_the_program_which_ends_cleanly(tmp_path: Path) -> None:
    ioc = Ioc(tmp_path, "--device", "cpu")
    clients: list[PvapyClient] = []
    try:
        ioc.expect("Ready")
        # two: pvapy holds the GIL in a put, and hangs where its own monitor is told meanwhile
        clients += [PvapyClient(ioc), PvapyClient(ioc)]
        watching, putting = (client.ask for client in clients)
        watching("monitor", "OrthoZ")
        wait_for(lambda: watching("seen", "OrthoZ"), what="the first value")
        putting("put", "OrthoZ", 12)
        putting("choose", "FilterType", 2)
        assert ioc.get("OrthoZ") == 12
        assert ioc.get("FilterType", True) == "Ramp"
        wait_for(lambda: watching("seen", "OrthoZ")[-1] == 12, what="the post")
        ioc.put("OrthoZ", 13, wait=True)
        wait_for(lambda: watching("seen", "OrthoZ")[-2:] == [12, 13], what="both posts")
        assert putting("get", "OrthoZ")["value"] == 13
        assert putting("get", "OrthoZ")["display"]["units"] == ioc.get("OrthoZ.EGU")
        with pytest.raises(RuntimeError, match="none of the choices"):
            putting("choose", "FilterType", 9)
        ioc.process.send_signal(signal.SIGTERM)
        assert ioc.process.wait(10) == 0
    finally:
        for client in clients:
            client.close()
        ioc.close()
    assert not [line for line in ioc.lines if "Traceback" in line or "ERROR" in line]


# --- access security --------------------------------------------------------------------------


def test_a_channel_that_is_made_after_the_end_stays_silent() -> None:
    records = PvaRecords()  # one that has no records any more has none either
    assert records.testChannel(f"{PREFIX}Center") is False  # what is true claims the name
    assert not records.makeChannel(f"{PREFIX}Center.DESC", "127.0.0.1:1").isOpen()


def test_puts_are_judged_and_logged_as_over_ca(
    ioc: RecordsIoc, pva: PvaClient, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "ioc.acf"
    path.write_text(
        "HAG(here) {127.0.0.1} HAG(there) {127.0.0.2}\n"
        "ASG(DEFAULT) {RULE(1, READ) RULE(1, WRITE, TRAPWRITE) {HAG(here)}}\n"
        "ASG(THERE) {RULE(1, READ) RULE(1, WRITE) {HAG(there)}}\n"
    )
    security = read_access_file(path)
    assert security.is_readable
    for record in ioc.group.records.values():
        record.security = security
    ioc.group.records["RotX"].field_values["ASG"] = "THERE"
    with caplog.at_level(logging.INFO):
        pva.put("RotY", 4.5)
        with pytest.raises(RemoteError, match="not writable"):
            pva.put("RotX", 4.5)
        with pytest.raises(RemoteError, match="Channel Access"):
            pva.put("RotY.ASG", "THERE")
    assert (pva.get("RotY").value, pva.get("RotX").value) == (4.5, 0.0)
    lines = [record.message for record in caplog.records]
    assert any(re.match(rf"put: {PREFIX}RotY = 4\.5 by .* at 127\.0\.0\.1", x) for x in lines)
    assert any(re.match(rf"put denied .*{PREFIX}RotX = 4\.5 .* 127\.0\.0\.1", x) for x in lines)
