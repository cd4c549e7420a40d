"""StreamBinning over Channel Access: its choices, what follows it, what is saved with it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ca_ioc import MACROS, PREFIX, Client, Ioc
from fake_run import FakeRun

from tomostream_ioc.epics.autosave import Autosave
from tomostream_ioc.epics.group import TomoStreamGroup
from tomostream_ioc.model.params import ReconParams

NORMAL, PUTFAIL = 1, 160
REQUEST = Path(__file__).parents[2] / "db" / "auto_settings.req"
HALF = ReconParams(center=49.5, ortho_x=48, ortho_y=35, ortho_z=15, filter_type="Ramp")


def test_choices_and_raw_values(ioc: Ioc, client: Client) -> None:
    assert client.describe("StreamBinning")["type"] == "ENUM"
    assert client.get("StreamBinning", as_string=True) == "1x"
    assert [client.get(f"StreamBinning.{state}ST") for state in ("ZR", "ON", "TW")] == [
        "1x",
        "2x",
        "4x",
    ]
    for text, index, raw in (("2x", 1, 2), ("4x", 2, 4), ("1x", 0, 1)):
        assert client.put("StreamBinning", text) == NORMAL
        assert (client.get("StreamBinning"), client.get("StreamBinning.RVAL")) == (index, raw)
        assert ioc.run.of("set_binning")[-1] == raw
    calls = len(ioc.run.calls)
    for text in ("3x", "8x", "3", ""):
        assert client.put("StreamBinning", text) == PUTFAIL
    assert client.get("StreamBinning", as_string=True) == "1x"
    assert len(ioc.run.calls) == calls


def test_center_and_slices_have_followed_when_the_put_is_done(ioc: Ioc, client: Client) -> None:
    for record, text in {"Center": "99.5", "OrthoX": "96", "FilterType": "Ramp"}.items():
        assert client.put(record, text) == NORMAL
    seen = client.monitor("Center")
    client.seen(seen, at_least=1)
    ioc.run.rebinned = HALF
    assert client.put("StreamBinning", "2x") == NORMAL
    assert client.get("Center") == 49.5
    assert [client.get(f"Ortho{axis}") for axis in "XYZ"] == [48, 35, 15]
    assert ioc.run.of("set_params")[-1] == HALF  # as the records stand, scaled once
    assert client.seen(seen, at_least=2) == [99.5, 49.5]
    assert ioc.run.of("start") == []


def test_a_binning_that_does_not_exist_is_refused_by_the_run(ioc: Ioc, client: Client) -> None:
    """A client may change what a choice stands for."""
    assert client.put("StreamBinning.THST", "8x") == NORMAL
    assert client.put("StreamBinning.THVL", "8") == NORMAL
    assert client.put("StreamBinning", "8x") == PUTFAIL
    assert client.get("StreamBinning", as_string=True) == "1x"


def test_it_is_saved_and_told_before_the_parameters_that_were_saved_with_it(
    make_ioc: Callable[..., Ioc], tmp_path: Path
) -> None:
    def autosave(group: TomoStreamGroup) -> Autosave:
        return Autosave(tmp_path, [REQUEST], {"P": "ref:", "R": "TomoStream:"}, group)

    first = make_ioc()
    client = first.client()
    assert client.put("StreamBinning", "4x") == NORMAL
    assert client.put("Center", "305.5") == NORMAL
    assert autosave(first.group).save_now()
    assert f"{PREFIX}StreamBinning 2" in (tmp_path / "auto_settings.sav").read_text()

    later = make_ioc(lambda group: [*autosave(group).restore()] and None)
    assert later.client().get("StreamBinning", as_string=True) == "4x"
    calls = [(name, value) for name, value in later.run.calls if name.startswith("set_")]
    assert calls[0] == ("set_binning", 4)
    assert calls[1][0] == "set_params"
    assert calls[1][1].center == 305.5
    assert len(later.run.of("set_binning")) == 1


def test_the_default_is_none() -> None:
    group = TomoStreamGroup(PREFIX, macros=MACROS, control=FakeRun())
    assert group.stream_binning.state(group.stream_binning.value) == (1, "1x")
