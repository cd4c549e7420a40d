"""Access security over Channel Access: libca, and a client that does not keep to its rights."""

from __future__ import annotations

import logging
import os
import pwd
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import caproto as ca
import pytest
from ca_ioc import PREFIX, Ioc
from raw_client import RawClient
from support.processes import wait_for

from tomostream_ioc.epics import direct_messages
from tomostream_ioc.epics.access import read_access_file
from tomostream_ioc.epics.group import TomoStreamGroup

ME = pwd.getpwuid(os.getuid()).pw_name
NORMAL, NO_WRITE = 1, 376  # ECA_NORMAL, ECA_NOWTACCESS
REFUSED_BY_LIBCA = f"refused by libca: {NO_WRITE}"
FILE = f"""
UAG(me) {{{ME}}}
UAG(others) {{somebody}}
HAG(here) {{127.0.0.1}}
HAG(there) {{127.0.0.2}}
ASG(DEFAULT)  {{RULE(1, READ) RULE(1, WRITE) {{UAG(me)}}}}
ASG(OTHERS)   {{RULE(1, READ) RULE(1, WRITE) {{UAG(others)}}}}
ASG(HERE)     {{RULE(1, READ) RULE(1, WRITE) {{HAG(here)}}}}
ASG(THERE)    {{RULE(1, READ) RULE(1, WRITE, TRAPWRITE) {{HAG(there)}}}}
ASG(OPERATOR) {{RULE(1, READ) RULE(0, WRITE)}}
ASG(HIDDEN)   {{RULE(1, NONE) RULE(1, WRITE) {{HAG(there)}}}}
"""
GROUPS = {
    "RotX": "OTHERS",
    "RotY": "HERE",
    "RotZ": "THERE",
    "OrthoX": "OPERATOR",
    "OrthoY": "HIDDEN",
    "ReconStatus": "HIDDEN",
}


@pytest.fixture
def guarded(make_ioc: Callable[..., Ioc], tmp_path: Path) -> Ioc:
    path = tmp_path / "ioc.acf"
    path.write_text(FILE)
    security = read_access_file(path)

    def guard(group: TomoStreamGroup) -> None:
        for record in group.records.values():
            record.security = security
        for name, asg in GROUPS.items():
            group.records[name].field_values["ASG"] = asg

    return make_ioc(guard)


@pytest.fixture
def raw(guarded: Ioc) -> Iterator[Callable[..., RawClient]]:
    made: list[RawClient] = []

    def make(**what: Any) -> RawClient:
        made.append(RawClient(guarded.port, **what))
        return made[-1]

    yield make
    for client in made:
        client.close()


def test_users_and_addresses_of_a_libca_client(guarded: Ioc) -> None:
    client = guarded.client()
    rights = {
        name: (seen["read"], seen["write"])
        for name in ("Center", "RotX", "RotY", "RotZ", "OrthoX", "OrthoX.DESC", "FrameRate")
        for seen in [client.describe(name)]
    }
    assert rights == {
        "Center": (True, True),  # my user
        "RotX": (True, False),  # another's
        "RotY": (True, True),  # my address
        "RotZ": (True, False),  # another's
        "OrthoX": (True, True),  # level 0
        "OrthoX.DESC": (True, False),  # level 1
        "FrameRate": (True, False),  # for nobody
    }
    assert client.put("Center", "7") == NORMAL
    assert client.put("RotY", "7") == NORMAL
    assert client.put("OrthoX", "7") == NORMAL
    for name in ("RotX", "RotZ", "OrthoX.DESC"):
        assert client.put(name, "7") == REFUSED_BY_LIBCA
    assert [guarded.value(name) for name in ("Center", "RotX", "RotY", "RotZ")] == [7, 0, 7, 0]


def test_a_record_that_is_read_only_to_a_client_is_otherwise_the_same(
    guarded: Ioc, make_ioc: Callable[..., Ioc]
) -> None:
    client, free = guarded.client(), make_ioc().client()
    seen, unguarded = client.describe("RotX"), free.describe("RotX")
    assert {**seen, "write": True} == unguarded
    number = client.monitor("RotX")
    assert client.seen(number, at_least=1) == [0.0]
    with_rights = RawClient(guarded.port, user="somebody")
    assert with_rights.put(f"{PREFIX}RotX", "2") == NORMAL
    assert client.seen(number, at_least=2) == [0.0, 2.0]
    with_rights.close()


def test_what_can_not_be_read_is_not_told(guarded: Ioc, raw: Callable[..., RawClient]) -> None:
    client = guarded.client()
    hidden = client.monitor("OrthoY")
    text = client.monitor("ReconStatus")
    assert client.describe("OrthoX")["read"]
    with pytest.raises(RuntimeError, match="Read access denied"):
        client.get("OrthoY")
    assert client.put("OrthoY", "3") == REFUSED_BY_LIBCA
    expert = raw(source="127.0.0.2")
    assert expert.put(f"{PREFIX}OrthoY", "3") == NORMAL
    assert expert.read(f"{PREFIX}OrthoY") == 3
    outsider = raw()
    assert outsider.read(f"{PREFIX}OrthoY") == f"{PREFIX}OrthoY: no read access"
    assert outsider.rights[f"{PREFIX}OrthoY"] == ca.AccessRights.NO_ACCESS
    assert guarded.value("OrthoY") == 3
    # a put of ASG changes what clients may do at once, and their monitors speak
    assert client.seen(hidden, at_least=1, timeout=0.3) == []
    assert expert.put(f"{PREFIX}OrthoY.ASG", "HERE") == NORMAL
    assert client.seen(hidden, at_least=1) == [3]
    assert client.put("OrthoY", "4") == NORMAL
    assert client.seen(hidden, at_least=2) == [3, 4]
    assert client.seen(text) == []
    wait_for(lambda: outsider.read(f"{PREFIX}OrthoY") == 4, what="the read")
    assert outsider.rights[f"{PREFIX}OrthoY"] == ca.AccessRights.READ | ca.AccessRights.WRITE
    assert expert.put(f"{PREFIX}OrthoY", "5") == NO_WRITE
    assert client.put("OrthoY.ASG", "HIDDEN") == NORMAL  # shuts itself out
    wait_for(lambda: client.rights("OrthoY") == [False, False], what="the loss of rights")
    assert expert.put(f"{PREFIX}OrthoY", "6") == NORMAL
    assert client.put("OrthoY", "7") == REFUSED_BY_LIBCA
    assert client.seen(hidden, at_least=3, timeout=0.3) == [3, 4]


@pytest.mark.parametrize(
    ("who", "name", "allowed"),
    [
        ({"source": "127.0.0.2"}, "RotZ", True),
        ({"source": "127.0.0.2"}, "RotY", False),
        ({"source": "127.0.0.2", "host": "127.0.0.1"}, "RotY", False),  # a lie
        ({"source": "127.0.0.2", "host": "localhost"}, "RotY", False),
        ({"host": "127.0.0.2"}, "RotZ", False),
        ({"user": "somebody"}, "RotX", True),
        ({"user": "nobody"}, "RotX", False),
        ({"user": "nobody"}, "FrameRate", False),
    ],
)
def test_a_put_that_comes_all_the_same(
    guarded: Ioc,
    raw: Callable[..., RawClient],
    caplog: pytest.LogCaptureFixture,
    who: dict[str, str],
    name: str,
    allowed: bool,
) -> None:
    caplog.set_level(logging.INFO, "tomostream_ioc")
    client, full = raw(**who), f"{PREFIX}{name}"
    severity = guarded.group.records[name].field("SEVR")
    status = client.put(full, "5")
    source, user = who.get("source", "127.0.0.1"), who.get("user", "u")
    if allowed:
        assert (status, guarded.value(name)) == (NORMAL, 5)
        trapped = f"put: {full} = b'5' by '{user}' at {source}" in caplog.text
        assert trapped == (name == "RotZ")
        return
    assert (status, guarded.value(name)) == (NO_WRITE, 0)
    assert client.put(full, "6", notify=False) == f"{full}: not writable"
    for value in ("5", "6"):
        assert f"put denied (not writable): {full} = b'{value}' by '{user}' at {source}" in (
            caplog.text
        )
    assert guarded.group.records[name].field("SEVR") == severity


def test_a_user_name_holds_from_the_first_channel_on(
    guarded: Ioc, raw: Callable[..., RawClient]
) -> None:
    client, full = raw(user="nobody"), f"{PREFIX}RotX"
    client.channel(f"{PREFIX}Center")
    client.say_user("somebody")
    assert client.put(full, "5") == NO_WRITE


def test_no_text_of_an_exception_reaches_a_client(
    ioc: Ioc, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    client, full = RawClient(ioc.port), f"{PREFIX}Center"
    record = ioc.group.records["Center"]

    async def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("a secret of the program")

    def broken_too(*_: Any) -> None:
        raise RuntimeError("a secret of the program")

    client.channel(full)
    with monkeypatch.context() as patch:
        patch.setattr(record, "_read", broken)
        patch.setattr(direct_messages, "payload_of", broken_too)
        assert client.read(full) == f"{full}: internal error"
        patch.setattr(record, "put", broken)
        assert client.put(full, "5", notify=False) == f"{full}: internal error"
        assert client.put(full, "5") == 160  # ECA_PUTFAIL
    assert caplog.text.count("RuntimeError: a secret of the program") == 2  # one line per cause
    assert "Traceback" in caplog.text
    assert client.read(full) == 0
    client.close()


def test_records_of_the_process_tick(ioc: Ioc) -> None:
    client = ioc.client()
    beats = client.seen(client.monitor("HEARTBEAT"), at_least=3)
    assert beats[-1] > beats[0]
    assert re.fullmatch(r"00:00:\d\d", client.get_string("UPTIME"))
    stamp = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"
    assert re.fullmatch(stamp, client.get_string("STARTTOD"))
    assert re.fullmatch(stamp, client.get_string("TOD"))
    assert client.get("PROCESS_ID") == os.getpid()
    assert client.get("CPU_CNT") == os.cpu_count()
    assert client.get("HOSTNAME") == os.uname().nodename[:39]
    assert 1e6 < client.get("MEM_USED") < 1e12
    assert client.get("MEM_FREE") > 0
    seen = client.describe("IOC_CPU_LOAD")
    assert 0 <= seen["value"] <= 100
    assert (seen["write"], seen["severity"]) == (False, 0)
