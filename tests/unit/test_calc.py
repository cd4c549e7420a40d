"""CALC expressions and what clients' values are turned into."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from caproto import ChannelType

from tomostream_ioc.epics import wire
from tomostream_ioc.epics.calc import CalcError, Calculation
from tomostream_ioc.epics.wire import PutError

VALUES = {**dict.fromkeys("ABCDEFGHIJKL", 0.0), "A": 5.0, "B": 2.0, "VAL": 9.0}


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("B+A", 7),
        ("B-A", -3),
        ("A-1", 4),
        ("A>0?1:0", 1),
        ("C>0?1:0", 0),
        ("A-B-1", 2),
        ("A+B*3", 11),
        ("(A+B)*3", 21),
        ("2**3", 8),
        ("-A^B", 25),
        ("A%3", 2),
        ("A>B&&B>A", 0),
        ("A>B||B>A", 1),
        ("!A", 0),
        ("~0", -1),
        ("A=5", 1),
        ("A#5", 0),
        ("7&3|8", 11),
        ("1<<4>>1", 8),
        ("max(A,B,C)+min(A,B)", 7),
        ("nint(-2.5)", -3),
        ("sqr(16)", 4),
        ("VAL*1e1", 90),
        ("0x1F", 31),
        ("a ? b ? 1 : 2 : 3", 1),
        ("sin(90*D2R)", 1),
        ("finite(A)", 1),
    ],
)
def test_expressions(expression: str, expected: float) -> None:
    assert Calculation(expression)(VALUES) == pytest.approx(expected)


@pytest.mark.parametrize(
    "expression", ["", "B+*A", "(A", "A)", "A?1", "FOO(A)", "A B", "A$", "(" * 79]
)
def test_what_is_no_expression(expression: str) -> None:
    with pytest.raises(CalcError):
        Calculation(expression)


@pytest.mark.parametrize("expression", ["A/C", "SQRT(-A)", "10**1000", "LN(0)", "A%C"])
def test_arithmetic_that_fails(expression: str) -> None:
    with pytest.raises(CalcError):
        Calculation(expression)(VALUES)


@pytest.mark.parametrize(
    ("raw", "value"), [(b" 12.5 ", 12.5), (b"1e3", 1000), (b"-.5", -0.5), (b"0x10", 16), (b"5.", 5)]
)
def test_numbers_in_text(raw: bytes, value: float) -> None:
    assert wire.to_float([raw], ChannelType.STRING) == value


@pytest.mark.parametrize(
    "raw", [b"", b"nan", b"inf", b"-Infinity", b"1_0", b"1,5", b"5 mm", b"1e400"]
)
def test_text_that_is_no_number(raw: bytes) -> None:
    with pytest.raises(PutError):
        wire.to_float([raw], ChannelType.STRING)


@pytest.mark.parametrize(
    ("data", "data_type"),
    [
        ([b"x" * 40], ChannelType.STRING),
        (np.frombuffer(b"x" * 300, np.uint8), ChannelType.CHAR),
        ([b"a", b"b"], ChannelType.STRING),
        ([], ChannelType.STRING),
        ([b"a\nb"], ChannelType.STRING),
    ],
)
def test_strings_that_are_refused(data: Any, data_type: ChannelType) -> None:
    with pytest.raises(PutError):
        wire.to_text(data, data_type, 40)


def test_arrays_are_not_numbers() -> None:
    with pytest.raises(PutError):
        wire.to_float(np.zeros(2), ChannelType.DOUBLE)
    with pytest.raises(PutError):
        wire.to_bytes(np.zeros(300, np.uint8), ChannelType.CHAR, 256)
    assert wire.to_bytes(np.array([1.0, 255.0]), ChannelType.DOUBLE, 256) == b"\x01\xff"


@pytest.mark.parametrize(
    ("value", "precision", "text"),
    [
        (1.25, 3, "1.250"),
        (1.0, 0, "1"),
        (1e8, 5, "100000000.000"),
        (1e17, 3, " 1.000e+17"),
        (0.5, 10, " 5.0000000000e-01"),
        (math.nan, 3, "       nan"),
    ],
)
def test_doubles_are_shown_as_epics_shows_them(value: float, precision: int, text: str) -> None:
    assert wire.double_to_string(value, precision) == text
