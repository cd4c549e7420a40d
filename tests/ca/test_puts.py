"""Puts of every kind: what is stored, what is refused, what monitors see."""

from __future__ import annotations

from typing import Any

import pytest
from ca_ioc import Client, Ioc
from support.processes import wait_for

from tomostream_ioc.epics.operation_records import OperationRecords

NORMAL, PUTFAIL, NO_WRITE_ACCESS = 1, 160, "refused by libca: 376"
BAD_COUNT, TOO_LONG = "refused by libca: 176", "refused by libca: 186"

PARAMETERS = [
    ("Center", "1224.25", "center", 1224.25),
    ("OrthoX", "100", "ortho_x", 100),
    ("OrthoY", "1e3", "ortho_y", 1000),
    ("OrthoZ", "0x10", "ortho_z", 16),
    ("RotX", "-1.5", "rot_x_deg", -1.5),
    ("RotY", "2.5", "rot_y_deg", 2.5),
    ("RotZ", ".5", "rot_z_deg", 0.5),
    ("FilterType", "Butterworth", "filter_type", "Butterworth"),
    ("Dezinger", "Radius 3", "dezinger", 3),
    ("RingRemoval", "fw", "ring_removal", "fw"),
    ("Energy", "25", "energy_kev", 25.0),
    ("Distance", "150", "distance_mm", 150.0),
    ("Alpha", "1e-8", "alpha", 1e-8),
    ("PixelSize", "0.69", "pixel_size_um", 0.69),
]


def test_every_parameter_takes_effect_at_once_as_a_snapshot_of_all(
    ioc: Ioc, client: Client
) -> None:
    for record, text, name, value in PARAMETERS:
        assert client.put(record, text) == NORMAL
        assert getattr(ioc.run.of("set_params")[-1], name) == value, record
        assert client.get(f"{record}.SEVR") == 0
    last = ioc.run.of("set_params")[-1]
    for _, _, name, value in PARAMETERS:
        assert getattr(last, name) == value
    assert len(ioc.run.of("set_params")) == 1 + len(PARAMETERS)


REFUSED: list[tuple[str, Any, str]] = [
    ("Center", "abc", "STRING"),
    ("Center", "", "STRING"),
    ("Center", "nan", "STRING"),
    ("Center", "1e999", "STRING"),
    ("Center", "nan", "DOUBLE"),
    ("Center", "inf", "DOUBLE"),
    ("OrthoX", "abc", "STRING"),
    ("OrthoX", "3 apples", "STRING"),
    ("OrthoX", 1e30, "DOUBLE"),
    ("OrthoX", "nan", "DOUBLE"),
    ("OrthoX", "-3000000000", "STRING"),
    ("FilterType", "Hann", "STRING"),
    ("FilterType", "", "STRING"),
    ("FilterType", 4, "ENUM"),
    ("FilterType", 65535, "ENUM"),
    ("FilterType", -1, "SHORT"),
    ("FilterType", "nan", "DOUBLE"),
    ("Dezinger", 4, "LONG"),
    ("Dezinger", "4", "STRING"),
    ("LensChangeSync", 2, "ENUM"),
    ("LensChangeSync", "Maybe", "STRING"),
    ("StartRecon", 2, "LONG"),
    ("AbortRecon", -1, "LONG"),
    ("ServerRunning", 7, "ENUM"),
    ("TomoScanPVPrefix", "a\tb", "STRING"),
    ("ReconPVAName", "", "STRING"),
    ("ReconPVAName", "two words", "STRING"),
    ("ReconPVAName", "blank:behind ", "STRING"),
    ("ReconPVAName", "ref:TomoStream:Center", "STRING"),
    ("ReconPVAName", "ref:TomoStream:Ortho", "STRING"),  # the x slice would be OrthoX
    ("ReconStatus", "text", "STRING"),
    ("ReconStatus", 300, "LONG"),
    ("Center.PREC", "nan", "STRING"),
    ("Center.PREC", "70000", "STRING"),
    ("Center.SCAN", 99, "ENUM"),
    ("FilterType.ZRST", "", "STRING"),
    ("CenterTweakUp", "nan", "DOUBLE"),
    ("CenterTweakUp.A", "inf", "DOUBLE"),
]


def test_what_can_not_be_stored_is_refused_and_changes_nothing(ioc: Ioc, client: Client) -> None:
    wait_for(lambda: ioc.value("ServerRunning") == 1, what="Running")
    assert client.put("Center", "5") == NORMAL

    def state() -> dict[str, Any]:
        counting = {"Watchdog", *(prop.pvspec.name for prop in OperationRecords._pvs_.values())}
        return {
            name: (r.value, *(r.field_values[field] for field in ("SEVR", "STAT", "DISP")))
            for name, r in ioc.group.records.items()
            if name not in counting
        }

    before, calls = state(), len(ioc.run.calls)
    for record, value, dbr_type in REFUSED:
        assert client.put(record, value, dbr_type) == PUTFAIL, (record, value)
        assert state() == before, (record, value)
    assert client.put("TomoScanPVPrefix.VAL$", [120] * 40, "CHAR") == PUTFAIL
    assert client.put("TomoScanPVPrefix", "x" * 300) == TOO_LONG
    assert client.put("ReconStatus", [120] * 300, "CHAR") == BAD_COUNT
    assert client.put("FramesReceived", "3") == NO_WRITE_ACCESS
    assert client.put("Center.NAME", "other") == NO_WRITE_ACCESS
    assert client.put("Center.STAT", 0, "ENUM") == NO_WRITE_ACCESS
    assert client.put_blind("Center", float("nan")) == 1
    assert client.get("Center") == 5
    assert state() == before
    assert len(ioc.run.calls) == calls


def test_enums_are_put_by_name_by_index_and_read_as_both(client: Client) -> None:
    assert client.put("Dezinger", "Radius 3") == NORMAL
    assert (client.get("Dezinger"), client.get("Dezinger.RVAL")) == (2, 3)
    assert client.put("Dezinger", 3, "ENUM") == NORMAL
    assert client.get("Dezinger", as_string=True) == "Radius 4"
    assert client.get("Dezinger.RVAL") == 4
    assert client.put("Dezinger", "1") == NORMAL
    assert client.get("Dezinger", as_string=True) == "Radius 2"
    assert client.put("FilterType", 2.0, "DOUBLE") == NORMAL
    assert client.get("FilterType", as_string=True) == "Ramp"


def test_long_text_is_read_as_long_as_it_was_put(ioc: Ioc, client: Client) -> None:
    ioc.run.show(message="Idle")
    text = "a status that is longer than forty characters, by far"
    monitor = client.monitor("ReconStatus", count=256)
    ioc.run.show(message=text)
    wait_for(lambda: ioc.value("ReconStatus") == text.encode(), what="the text")
    assert client.get("ReconStatus", as_string=True) == text
    assert len(client.get("ReconStatus")) == len(text)
    assert client.get("ReconStatus.NORD") == len(text)
    # asked for 256 elements, a C IOC fills up with zeros; MEDM reads them all
    assert bytes(client.get("ReconStatus", count=256)) == text.encode().ljust(256, b"\0")
    seen = client.seen(monitor, at_least=2)[-1]
    assert bytes(seen) == text.encode().ljust(256, b"\0")


def test_strings_take_39_characters_also_as_long_strings(client: Client) -> None:
    name = "x" * 39
    assert client.put("DarkPVAName", name) == NORMAL
    assert client.get("DarkPVAName") == name
    assert client.put("DarkPVAName.VAL$", [*b"other:dark", 0], "CHAR") == NORMAL
    assert client.get("DarkPVAName") == "other:dark"
    described = client.describe("DarkPVAName.VAL$")
    assert (described["type"], described["count"]) == ("CHAR", 40)
    assert bytes(client.get("DarkPVAName.VAL$")) == b"other:dark\0"
    assert bytes(client.get("Center.NAME$")) == b"ref:TomoStream:Center\0"


def test_names_reach_the_run_at_its_start_and_the_output_at_once(ioc: Ioc, client: Client) -> None:
    assert client.put("ReconPVAName", "other:slices") == NORMAL
    assert ioc.run.of("set_output")[-1] == "other:slices"
    assert client.put("Crosshair", "Off") == NORMAL
    assert ioc.run.of("set_crosshair")[-1] is False
    assert client.put("ThetaPVAName", "other:theta") == NORMAL
    client.start_put("StartRecon", "1")
    start = wait_for(lambda: ioc.run.of("start"), what="the start")
    assert start[0][0].theta_pva == "other:theta"


def test_center_tweak_calculates_by_proc_and_not_by_val(ioc: Ioc, client: Client) -> None:
    client.put("Center", "100")
    assert client.get("CenterTweak") == 3
    assert client.put("CenterTweakUp.PROC", "1") == NORMAL
    assert client.get("Center") == 103
    assert ioc.run.of("set_params")[-1].center == 103
    assert client.put("CenterTweakDown.PROC", "0") == NORMAL
    assert client.put("CenterTweak", "0.25") == NORMAL
    assert client.put("CenterTweakDown.PROC", "1") == NORMAL
    assert client.get("Center") == 99.75
    assert client.get("CenterTweakDown") == 99.75
    posted = client.monitor("CenterTweakUp")
    client.seen(posted, at_least=1)
    assert client.put("CenterTweakUp", "7") == NORMAL
    assert client.put("CenterTweakUp", "7") == NORMAL
    assert client.seen(posted, at_least=3) == [103, 7, 7]
    assert client.get("Center") == 99.75
    assert client.put("CenterTweakUp.A", "5") == NORMAL  # A processes; INPA is read before
    assert client.get("Center") == 100


def test_a_bad_calculation_is_said_and_drives_nothing(client: Client) -> None:
    client.put("Center", "100")
    assert client.put("CenterTweakUp.CALC", "B+*A") == NORMAL
    assert client.get("CenterTweakUp.CLCV") == -1
    assert client.put("CenterTweakUp.PROC", "1") == NORMAL
    assert client.get("CenterTweakUp.STAT", as_string=True) == "CALC"
    assert client.get("CenterTweakUp.SEVR", as_string=True) == "INVALID"
    assert client.get("Center") == 100
    assert client.put("CenterTweakUp.CALC", "B+10*A") == NORMAL
    assert client.get("CenterTweakUp.CLCV") == 0
    assert client.get("Center") == 130  # CALC processes
    assert client.get("CenterTweakUp.SEVR") == 0


def test_unchanged_values_are_not_posted_again(client: Client) -> None:
    client.put("Center", "1")
    client.put("FilterType", "Ramp")
    client.put("DarkPVAName", "a")
    records = ("Center", "FilterType", "DarkPVAName")
    monitors = [client.monitor(record) for record in records]
    for monitor in monitors:
        client.seen(monitor, at_least=1)
    for record, old, new in zip(records, ("1", "Ramp", "a"), ("2", "Parzen", "b"), strict=True):
        for text in (old, old, new, new):
            assert client.put(record, text) == NORMAL
    assert [client.seen(monitor, at_least=2) for monitor in monitors] == [
        [1, 2],
        [2, 0],
        ["a", "b"],
    ]


def test_a_disabled_record_refuses_puts(client: Client) -> None:
    client.put("Center", "1")
    assert client.put("Center.DISP", "1") == NORMAL
    assert client.put("Center", "2") == PUTFAIL
    assert client.put("Center.PREC", "2") == PUTFAIL
    assert client.get("Center") == 1
    assert client.put("Center.DISP", "0") == NORMAL
    assert client.put("Center", "2") == NORMAL


def test_limits_that_a_client_sets_are_served_and_clip_and_alarm(client: Client) -> None:
    for field, text in {"DRVL": "0", "DRVH": "100", "HIGH": "90", "HSV": "MINOR"}.items():
        assert client.put(f"Center.{field}", text) == NORMAL
    control = client.describe("Center")["ctrl"]
    assert (control["lower_ctrl_limit"], control["upper_ctrl_limit"]) == (0, 100)
    assert control["upper_warning_limit"] == 90
    assert client.put("Center", "500") == NORMAL
    assert client.get("Center") == 100
    assert client.get("Center.STAT", as_string=True) == "HIGH"
    assert client.get("Center.SEVR", as_string=True) == "MINOR"
    assert client.put("Center", "50") == NORMAL
    assert client.get("Center.SEVR") == 0
    assert client.put("OrthoX", "5000") == NORMAL  # outside HOPR is accepted, as in C
    assert client.get("OrthoX") == 5000


def test_an_alarm_stays_while_the_value_is_beyond_its_limit(client: Client) -> None:
    for hysteresis, inside in {"0": "NO_ALARM", "5": "MINOR", "-5": "NO_ALARM"}.items():
        for field, text in {"HIGH": "90", "HSV": "MINOR", "HYST": hysteresis}.items():
            assert client.put(f"RotX.{field}", text) == NORMAL
        for value, severity in (
            ("80", "NO_ALARM"),
            ("95", "MINOR"),
            ("94", "MINOR"),
            ("88", inside),
            ("80", "NO_ALARM"),
        ):
            assert client.put("RotX", value) == NORMAL
            assert client.get("RotX.SEVR", as_string=True) == severity, (hysteresis, value)


def test_text_reads_have_the_record_s_precision(client: Client) -> None:
    client.put("Center", "12.34567")
    for precision, text in {"0": "12", "1": "12.3", "5": "12.34567"}.items():
        client.put("Center.PREC", precision)
        assert client.get_string("Center") == text


def test_an_undefined_record_becomes_defined_by_a_put(client: Client) -> None:
    before = client.describe("RotX")
    assert (before["status"], before["severity"]) == (17, 3)  # UDF, INVALID
    alarms = client.monitor("RotX.SEVR")
    assert client.put("RotX", "0") == NORMAL
    after = client.describe("RotX")
    assert (after["status"], after["severity"]) == (0, 0)
    assert after["timestamp"] > before["timestamp"]
    assert client.get("RotX.UDF") == 0
    assert client.seen(alarms, at_least=2) == [3, 0]


def test_puts_of_one_client_are_done_in_order(ioc: Ioc, client: Client) -> None:
    numbers = [client.start_put("Center", str(value)) for value in range(50)]
    assert {client.put_status(number, 5.0) for number in numbers} == {NORMAL}
    sent = [params.center for params in ioc.run.of("set_params")[1:]]
    assert sent == [float(value) for value in range(50)]
    assert client.get("Center") == 49


def test_a_monitor_of_a_number_on_a_text_disturbs_nobody(ioc: Ioc, client: Client) -> None:
    client.put("DarkPVAName", "12")
    other = ioc.client()
    numbers = other.monitor("DarkPVAName", dbr_type="DOUBLE")
    assert other.seen(numbers, at_least=1) == [12.0]
    texts = client.monitor("DarkPVAName")
    client.seen(texts, at_least=1)
    assert client.put("DarkPVAName", "a:name") == NORMAL
    assert client.seen(texts, at_least=2) == ["12", "a:name"]
    assert client.put("DarkPVAName", "13") == NORMAL
    assert other.seen(numbers, at_least=3)[-1] == 13.0
    with pytest.raises(RuntimeError):
        other.get_as("ThetaPVAName", "DOUBLE")
    late = other.monitor("ThetaPVAName", dbr_type="DOUBLE")
    assert client.put("ThetaPVAName", "b") == NORMAL
    assert other.get("ThetaPVAName") == "b"
    assert other.seen(late) == []
