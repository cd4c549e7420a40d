"""python -m tomostream_ioc.bench: the table, and what is refused; no figure is looked at."""

import sys

import pytest

from tomostream_ioc.bench.cli import main

SMALL = ["--sizes", "16x32", "--angles", "8", "--batch", "4", "--device", "cpu"]


def test_a_small_table(capsys):
    assert main([*SMALL, "--no-peers"]) == 0
    out = capsys.readouterr().out
    assert "16 rows x 32 columns uint16, 8 angles" in out
    assert "frames/s, all three slices updated" in out
    assert "whole FBP" not in out


def test_peers_that_are_not_installed_are_left_out(capsys):
    options = ["--peers", "32x24", "--peers-python", sys.executable]
    assert main([*SMALL, *options]) == 0
    out = capsys.readouterr().out
    assert "whole FBP of one slice, 32 x 32 from 24 angles" in out
    own = next(line for line in out.splitlines() if line.startswith("  tomostream_ioc"))
    assert "1.0 x" in own


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--sizes", "16y32"], "give two sizes"),
        (["--peers", "32"], "give two sizes"),
        (["--peers-python", "/nowhere/python"], "no such program"),
        (["--device", "tpu"], "does not exist"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(capsys, options, message):
    assert main([*SMALL, *options]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
