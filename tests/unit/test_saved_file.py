"""The text of .sav files, against the escaping of EPICS base and the syntax of the C autosave."""

from __future__ import annotations

import ctypes
import os
import time
from pathlib import Path

import epicscorelibs.path
import pytest

from tomostream_ioc.epics.saved_file import (
    array_elements,
    array_text,
    escape,
    parse_saved,
    remove_leftovers,
    saved_text,
    unescape,
)

STRINGS = [
    "",
    "2bmb:m17",
    " blanks  in and behind ",
    "a \"quote\" and 'one'",
    "C:\\data\\new",
    "\\",
    "two\nlines\r\n",
    "\a\b\f\t\v\x01\x1f\x7f",
    "50 µm, Å, ÿ",
    "# no comment",
    "! no error",
    "<END>",
    "{ } @",
]

# what C writes for two PVs that are away, long and escaped strings, menus and arrays
OF_C = r"""# autosave R5.3	Automatically generated - DO NOT MODIFY - 261121-030227
! 2 channel(s) not connected - or not all gets were successful
x:text a \"quote\", C:\\data\tand a tab
x:empty@
x:choice 2
x:long.VAL$ it goes on, \x41\102\303
#x:away@
#x:awayArray @array@ { "1"
"2" }
x:array @array@ { "1" "0.99" }
x:broken @array@ { "1" "2
3" "4"
 }
x:strings @array@ { "abc" "de\"f" "g{hi\"" "jkl mno} pqr" }
x:none @array@ { }
x:one 65
<END>
""".replace("@\n", " \n")


@pytest.fixture(scope="module")
def libcom() -> ctypes.CDLL:
    return ctypes.CDLL(epicscorelibs.path.get_lib("Com"))


@pytest.mark.parametrize("text", STRINGS)
def test_strings_are_escaped_as_epics_base_does(libcom: ctypes.CDLL, text: str) -> None:
    raw = text.encode("latin-1")
    buffer = ctypes.create_string_buffer(1000)
    n = libcom.epicsStrnEscapedFromRaw(
        buffer, ctypes.c_size_t(1000), raw, ctypes.c_size_t(len(raw))
    )
    assert escape(text).encode() == buffer.raw[:n]


@pytest.mark.parametrize("text", [*map(escape, STRINGS), r"\60 \q\'", r"\0x", r"\x4 \x4g", "end\\"])
def test_strings_are_read_as_epics_base_does(libcom: ctypes.CDLL, text: str) -> None:
    raw = text.encode()
    buffer = ctypes.create_string_buffer(1000)
    n = libcom.epicsStrnRawFromEscaped(
        buffer, ctypes.c_size_t(1000), raw, ctypes.c_size_t(len(raw))
    )
    assert unescape(text).partition("\0")[0].encode("latin-1") == buffer.raw[:n].partition(b"\0")[0]


@pytest.mark.parametrize("text", STRINGS)
def test_what_is_written_is_read(text: str) -> None:
    file = saved_text([f"x:s {escape(text)}", f"x:a {array_text([text, 5])}", "x:n 5"])
    assert file.isascii()
    saved = parse_saved(file)
    assert saved.values["x:s"] == text
    assert array_elements(saved.values["x:a"]) == [text, "5"]
    assert saved.values["x:n"] == "5"
    assert saved.n_not_connected == 0


def test_a_string_that_looks_like_an_array_is_none() -> None:
    saved = parse_saved(saved_text([f"x:s {escape('@array@ {')}", "x:n 5"]))
    assert saved.values == {"x:s": "@array@ {", "x:n": "5"}


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_all_that_c_writes_is_read(line_end: str) -> None:
    saved = parse_saved(OF_C.replace("\n", line_end))
    assert saved.n_not_connected == 2
    arrays = {
        "x:array": ["1", "0.99"],
        "x:broken": ["1", "23", "4"],
        "x:strings": ["abc", 'de"f', 'g{hi"', "jkl mno} pqr"],
        "x:none": [],
    }
    for name, elements in arrays.items():
        assert array_elements(saved.values[name]) == elements, name
    assert {name: text for name, text in saved.values.items() if name not in arrays} == {
        "x:text": 'a "quote", C:\\data\tand a tab',
        "x:empty": "",
        "x:choice": "2",
        "x:long.VAL$": "it goes on, AB\u00c3",
        "x:one": "65",
    }


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "no <END>"),
        (OF_C[:-7], "no <END>"),
        (OF_C[: len(OF_C) // 2], "no <END>"),
        (OF_C + OF_C, "more behind <END>"),
        ('x:a @array@ { "1"\n<END>\n', "array without an end"),
        ("x:a 5\0\0\0\n<END>\n", "line 1 is not"),
    ],
)
def test_what_is_not_whole_is_refused(text: str, what: str) -> None:
    with pytest.raises(ValueError, match=what):
        parse_saved(text)


def test_at_any_length_a_truncated_file_is_refused() -> None:
    for length in range(len(OF_C) - 1):  # the last line feed may be missing
        with pytest.raises(ValueError, match=r"END|array|line"):
            parse_saved(OF_C[:length])


def test_only_old_leftovers_of_killed_writers_are_removed(tmp_path: Path) -> None:
    path = tmp_path / "auto_settings.sav"
    old, young = (tmp_path / f".auto_settings.sav{n}.77.tmp" for n in (0, 1))
    for file in (path, old, young, tmp_path / "other.tmp"):
        file.write_text("x")
    two_hours_ago_s = time.time() - 7200
    for file in (path, old, tmp_path / "other.tmp"):
        os.utime(file, (two_hours_ago_s, two_hours_ago_s))
    remove_leftovers(path)
    assert sorted(os.listdir(tmp_path)) == [young.name, path.name, "other.tmp"]
