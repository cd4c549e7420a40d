"""Access security files: what is read, what is refused, and what is granted to whom."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from tomostream_ioc.__main__ import main
from tomostream_ioc.epics.access import (
    OPEN,
    AccessSecurity,
    Grant,
    Right,
    plain_address,
    read_access_file,
    resolve,
    summary,
)
from tomostream_ioc.epics.dbd import fields_of, security_level
from tomostream_ioc.epics.put_log import PutLog, shortened
from tomostream_ioc.errors import ConfigError

HOSTS = {"console": ["164.54.1.10"], "twin": ["10.0.0.1", "10.0.0.2"], "10.0.0.9": ["10.0.0.9"]}
FILE = """
# who may do what
UAG(staff) {alice, "bob b"}
UAG(experts) {carol}
HAG(hutch) {console, twin}
HAG(nowhere) {gone, 10.0.0.9}
ASG(DEFAULT) {
    RULE(1, READ)
    RULE(0, WRITE) { UAG(staff) HAG(hutch) }
    RULE(1, WRITE, TRAPWRITE) { UAG(experts, staff) HAG(nowhere) }
}
ASG(READONLY) { RULE(1, READ, NOTRAPWRITE) }
ASG(HIDDEN)
ASG(ODD) { RULE(1, NONE) RULE(0, WRITE) RULE(1, READ) }
"""


def read(folder: Path, text: str) -> AccessSecurity:
    def look_up(host: str) -> list[str]:
        if host not in HOSTS:
            raise OSError("no such host")
        return HOSTS[host]

    path = folder / "ioc.acf"
    path.write_text(text)
    return read_access_file(path, look_up)


@pytest.mark.parametrize(
    ("group", "level", "address", "user", "expected"),
    [
        ("DEFAULT", 0, "1.2.3.4", "", Grant(Right.READ)),
        ("DEFAULT", 0, "164.54.1.10", "alice", Grant(Right.WRITE)),
        ("DEFAULT", 0, "10.0.0.2", "bob b", Grant(Right.WRITE)),
        ("DEFAULT", 1, "164.54.1.10", "alice", Grant(Right.READ)),  # not VAL
        ("DEFAULT", 0, "164.54.1.11", "alice", Grant(Right.READ)),
        ("DEFAULT", 0, "164.54.1.10", "Alice", Grant(Right.READ)),
        ("DEFAULT", 0, "164.54.1.10", "carol", Grant(Right.READ)),
        ("DEFAULT", 1, "10.0.0.9", "carol", Grant(Right.WRITE, trapped=True)),
        ("DEFAULT", 0, "10.0.0.9", "alice", Grant(Right.WRITE, trapped=True)),
        ("DEFAULT", 0, "gone", "carol", Grant(Right.READ)),
        ("", 0, "164.54.1.10", "alice", Grant(Right.WRITE)),
        ("NOT_IN_THE_FILE", 0, "164.54.1.10", "alice", Grant(Right.WRITE)),
        ("READONLY", 0, "10.0.0.9", "carol", Grant(Right.READ)),
        ("HIDDEN", 0, "10.0.0.9", "carol", Grant(Right.NONE)),
        ("ODD", 0, "1.2.3.4", "", Grant(Right.WRITE)),
        ("ODD", 1, "1.2.3.4", "", Grant(Right.READ)),
    ],
)
def test_rules_are_judged_as_in_c(tmp_path, group, level, address, user, expected):
    assert read(tmp_path, FILE).grant(group, level, address, user) == expected


def test_a_host_without_address_is_warned_of(tmp_path, caplog):
    read(tmp_path, FILE)
    assert "host 'gone' has no address" in caplog.text


def test_without_a_default_group_nothing_is_granted(tmp_path, caplog):
    security = read(tmp_path, "ASG(X) {RULE(1, WRITE)}")
    assert "no ASG(DEFAULT)" in caplog.text
    assert security.grant("", 0, "10.0.0.1", "alice") == Grant(Right.NONE)
    assert security.grant("X", 1, "10.0.0.1", "alice") == Grant(Right.WRITE)


def test_without_a_file_everybody_may_write_everything():
    assert OPEN.grant("", 1, "8.8.8.8", "anybody") == Grant(Right.WRITE)
    assert "may read and write; --access-security FILE" in summary(OPEN, None, ["10.0.0.1"])
    assert "any interface" in summary(OPEN, None, [])


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("\nASG(DEFAULT) {\n RULE(2, READ) }", "3: the level of a RULE is 0 or 1, not '2'"),
        ("ASG(DEFAULT) { RULE(1, read) }", "1: a RULE gives NONE, READ or WRITE, not 'read'"),
        ("ASG(DEFAULT) { RULE(1, READ, YES) }", "1: TRAPWRITE or NOTRAPWRITE is expected"),
        ("ASG(DEFAULT) { RULE(1) }", "1: a RULE has a level and a right"),
        ("ASG(A) {\nINPA(2bmb:x)\n}", "2: INPA: conditions on PVs are not supported"),
        ('ASG(A) { RULE(1, READ) {\nCALC("A=1") } }', "2: CALC: conditions on PVs"),
        ("ASG(A) { RULE(1, READ) { METHOD(x) } }", "1: UAG or HAG is expected, not 'METHOD'"),
        ("ASG(A) { RULE(1, READ) { UAG(x) } }", r"1: UAG\(x\) is not defined before this rule"),
        ("UAG(a) {b}\nUAG(a) {c}", r"2: UAG\(a\) is there already"),
        ("UAG(a, b) {c}", "1: UAG has one name, not 2"),
        ("HAG(a) {b", "1: a value is missing before the end of the file"),
        ("HAG a {b}", r"1: '\(' is missing before 'a'"),
        ("RULE(1, READ)", "1: UAG, HAG or ASG is expected, not 'RULE'"),
        ("ASG(A) { ASG(B) }", "1: RULE is expected, not 'ASG'"),
        ('UAG(a) {"b', "1: a string is not closed"),
    ],
)
def test_a_wrong_file_is_one_line_that_says_where(tmp_path, text, what):
    with pytest.raises(ConfigError, match=f"ioc.acf:{what}") as error:
        read(tmp_path, text)
    assert "\n" not in str(error.value)


def test_a_missing_or_wrong_file_ends_the_program_with_2(tmp_path, capsys):
    path = tmp_path / "ioc.acf"
    assert main(["--access-security", str(path)]) == 2
    path.write_text("ASG(DEFAULT) {\n  RULE(1, WRITES)\n}\n")
    assert main(["--access-security", str(path)]) == 2
    missing, wrong = capsys.readouterr().err.splitlines()
    assert f"{path}: can't be read" in missing
    assert f"{path}:2: a RULE gives" in wrong


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("127.0.0.1:5064", "127.0.0.1"),
        ("[::1]:5075", "::1"),
        ("[::ffff:10.0.0.1]:5075", "10.0.0.1"),
        ("fe80::1", "fe80::1"),
    ],
)
def test_address_of_a_peer(peer, address):
    assert plain_address(peer) == address


def test_hosts_are_looked_up():
    assert resolve("127.0.0.1") == ["127.0.0.1"]
    assert "127.0.0.1" in resolve("localhost")


def test_levels_of_fields_are_those_of_the_dbd():
    import epicscorelibs.path

    for record in ("ao", "longout", "mbbo", "bo", "bi", "stringout", "waveform", "calcout"):
        text = (Path(epicscorelibs.path.base_path) / "dbd" / f"{record}Record.dbd").read_text()
        fields = {block.split(",")[0]: "asl(ASL0)" in block for block in text.split("field(")[1:]}
        for name in ["VAL", *fields_of(record)]:
            assert security_level(record, name) == (0 if fields.get(name) else 1), (record, name)


def test_denied_puts_are_logged_without_flooding(caplog):
    now = [0.0]
    put_log = PutLog(lambda: now[0])
    for number in range(25):
        put_log.denied("x:Center", [number], "10.0.0.1", "eve\nroot", "not writable")
    lines = [record.message for record in caplog.records]
    assert len(lines) == 10
    assert lines[3] == "put denied (not writable): x:Center = 3 by 'eve\\nroot' at 10.0.0.1"
    now[0] = 1.5
    put_log.denied("x:Center", [1], "10.0.0.1", "eve", "not writable")
    assert [record.message for record in caplog.records][10] == "15 more puts denied or refused"
    with caplog.at_level(logging.INFO):
        put_log.trapped("x:Center", [2.5], "10.0.0.1", "carol")
    assert caplog.records[-1].message == "put: x:Center = 2.5 by 'carol' at 10.0.0.1"


@pytest.mark.parametrize(
    ("value", "text"),
    [([b"a\nb"], r"b'a\nb'"), ((1, 2), "(1, 2)"), (b"x", "120"), (7, "7"), ([], "[]")],
)
def test_values_in_the_log(value, text):
    assert shortened(value) == text


def test_long_values_are_cut_in_the_log():
    assert len(shortened(list(range(10**6)))) < 100
    assert len(shortened([b"x" * 1000])) < 100


@pytest.mark.parametrize(
    ("text", "readable"),
    [
        ("ASG(DEFAULT) {RULE(1, READ)}", True),
        ("ASG(DEFAULT) {RULE(1, WRITE)} ASG(A) {RULE(1, READ)}", True),
        ("ASG(DEFAULT) {RULE(1, READ)} ASG(A) {RULE(1, NONE)}", False),
        ("ASG(DEFAULT) {RULE(0, READ)}", False),
        ("ASG(A) {RULE(1, READ)}", False),  # DEFAULT is not there: no access
        ("UAG(u) {me} ASG(DEFAULT) {RULE(1, READ) {UAG(u)}}", False),
    ],
)
def test_whether_everybody_may_read(tmp_path, text, readable):
    path = tmp_path / "ioc.acf"
    path.write_text(text)
    assert read_access_file(path).is_readable is readable
