"""Database, template and substitutions files: what is read, and what is said of errors."""

from __future__ import annotations

from pathlib import Path

import pytest

from tomostream_ioc.epics.database import expand, read_database, read_substitutions
from tomostream_ioc.errors import ConfigError


def written(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$(P)$(R)Center", "2bmb:TomoStream:Center"),
        ("${P}x", "2bmb:x"),
        ("$(MISSING=5)", "5"),
        ("$(MISSING=)", ""),
        ("$(MISSING=$(P)a)", "2bmb:a"),
        ("$(P=other)", "2bmb:"),
        ("$(NESTED)", "2bmb:TomoStream:"),
        ("5 $ and $x", "5 $ and $x"),
        ("$($(WHICH))", "2bmb:"),
    ],
)
def test_macros_are_expanded(text: str, expected: str) -> None:
    macros = {"P": "2bmb:", "R": "TomoStream:", "NESTED": "$(P)$(R)", "WHICH": "P"}
    assert expand(text, macros) == expected


def test_records_fields_and_info_are_read(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        "a.template",
        """
        # a comment with "a quote
        record(ao,"$(P)One") { # behind a brace
            field(VAL, "3")
            field(PREC,"3") field(DESC , "say \\"hi\\", $(WHO=you)")
            info(autosaveFields, "VAL")
        }
        record(bo, $(P)Two)
        {
        }
        record("*", "$(P)One") { field(EGU, "mm") }
        """,
    )
    records = read_database(path, {"P": "x:"})
    assert list(records) == ["x:One", "x:Two"]
    one = records["x:One"]
    assert one.record_type == "ao"
    assert one.fields == {"VAL": "3", "PREC": "3", "DESC": 'say "hi", you', "EGU": "mm"}
    assert one.info == {"autosaveFields": "VAL"}
    assert one.place.endswith("a.template:3")
    assert records["x:Two"].fields == {}


def test_files_include_files(tmp_path: Path) -> None:
    written(tmp_path, "inner.db", 'record(ao, "$(P)In") {}')
    outer = written(tmp_path, "outer.db", 'include "inner.db"\nrecord(ao, "$(P)Out") {}')
    assert list(read_database(outer, {"P": ""})) == ["In", "Out"]
    itself = written(tmp_path, "itself.db", 'include "itself.db"')
    with pytest.raises(ConfigError, match="includes itself"):
        read_database(itself, {})


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ('record(ao, "a")\n{\n field(VAL "3")\n}', 3, "',' is missing before '3'"),
        ('record(ao, "a") {\n field(VAL, "3)\n}', 2, "a string is not closed"),
        ('record(ao, "a") {\n', 1, "a value is missing before the end of the file"),
        ('record(ao, "$(Q)") {}', 1, "macro Q is not defined"),
        ('\n\nrecord(ao, "$(Q") {}', 3, "is not closed"),
        ('record(ao, "$(LOOP)") {}', 1, "macro LOOP is defined by itself"),
        ('rekord(ao, "a") {}', 1, "'record' is expected, not 'rekord'"),
        ('record(ao, "a") {}\nrecord(bo, "a") {}', 2, "a is a ao already"),
        ('record(ao, "a") { feld(VAL, "3") }', 1, "'field' or 'info' is expected"),
    ],
)
def test_errors_name_file_and_line(tmp_path: Path, text: str, line: int, what: str) -> None:
    path = written(tmp_path, "bad.template", text)
    with pytest.raises(ConfigError) as caught:
        read_database(path, {"LOOP": "$(LOOP)"})
    assert str(caught.value).startswith(f"{path}:{line}: ")
    assert what in str(caught.value)


def test_unreadable_files_are_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nothing\.db: can't be read: No such file"):
        read_database(tmp_path / "nothing.db", {})
    with pytest.raises(ConfigError, match="can't be read: Is a directory"):
        read_substitutions(tmp_path)
    binary = tmp_path / "binary.substitutions"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not a text file"):
        read_substitutions(binary)


def test_substitutions_of_every_form(tmp_path: Path) -> None:
    template = written(tmp_path, "one.template", "")
    path = written(
        tmp_path,
        "all.substitutions",
        """
        # a comment { with } braces
        global { P="2bmb:", R=TomoStream: }
        file "one.template" {
            pattern { A, B C }   # commas or blanks
            { "1", "two words" "" }
            { $(P)x, y z }
        }
        file $(TOP)/db/other.template
        {
            { A=1, B="x, y", C= }
            global { G=7 }
            {A=2 B="$(A)$(P)"}
        }
        """,
    )
    loads = read_substitutions(path, {"TOP": "/top", "P": "outer:"})
    assert [load.template for load in loads] == [
        str(template),
        str(template),
        "/top/db/other.template",
        "/top/db/other.template",
    ]
    common = {"P": "2bmb:", "R": "TomoStream:"}
    assert [load.macros for load in loads] == [
        common | {"A": "1", "B": "two words", "C": ""},
        common | {"A": "2bmb:x", "B": "y", "C": "z"},
        common | {"A": "1", "B": "x, y", "C": ""},
        common | {"G": "7", "A": "2", "B": "22bmb:"},
    ]


def test_a_macro_may_pass_on_the_one_of_its_name_outside(tmp_path: Path) -> None:
    path = written(tmp_path, "s", 'file "t" { { P=$(P), R="$(R=TomoStream:)" } }')
    assert read_substitutions(path, {"P": "2bmb:"})[0].macros == {"P": "2bmb:", "R": "TomoStream:"}


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ('file "t"\n{ pattern {A, B}\n  {1} }', 3, "1 values for the pattern's 2 names"),
        ('file "t" {\n pattern {A}\n {1} ', 3, "a value is missing before the end of the file"),
        ('file "t" {\n { A } }', 2, "'=' is missing before '}'"),
        ('file "t" {\n { A="$(NOWHERE)" } }', 2, "macro NOWHERE is not defined"),
        ('file "t" {\n { A="$(B)", B="$(A)" } }', 2, "macro A is not defined"),
        ('\nfile "$(NOWHERE)/t" { }', 2, "macro NOWHERE is not defined"),
        ('fiel "t" {}', 1, "'file' or 'global' is expected"),
        ('file "t" { x {A=1} }', 1, "'pattern' or '{' is expected"),
        ("file { }", 1, "a value is missing before '{'"),
    ],
)
def test_errors_in_substitutions(tmp_path: Path, text: str, line: int, what: str) -> None:
    path = written(tmp_path, "bad.substitutions", text)
    with pytest.raises(ConfigError) as caught:
        read_substitutions(path, {})
    assert str(caught.value).startswith(f"{path}:{line}: ")
    assert what in str(caught.value)
