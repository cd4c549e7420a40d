"""Request files: which PVs they name, and what is said of errors."""

from __future__ import annotations

from pathlib import Path

import pytest

from tomostream_ioc.epics.request_file import read_request
from tomostream_ioc.errors import ConfigError


def test_request_files_name_what_is_saved(tmp_path: Path) -> None:
    (tmp_path / "inner.req").write_text("$(P)$(R)Inner\n${P}Brace$(Q=q)")
    (tmp_path / "outer.req").write_text(
        "# a comment\n"
        "#controlPV $(P)$(R)ReconTime\n"
        "\n"
        "  $(P)$(R)First   # said behind it\n"
        'file "inner.req", P=$(P) R="other:"\n'
        "file inner.req P=x:, R=\n"
        "$(P)$(R)First\n"
        "$(P)$(R)Last.PREC"
    )
    assert read_request(tmp_path / "outer.req", {"P": "a:", "R": "b:"}) == [
        "a:b:First",
        "a:other:Inner",
        "a:Braceq",
        "x:Inner",
        "x:Braceq",
        "a:b:Last.PREC",
    ]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("$(NONE)x", ":1: macro NONE is not defined"),
        ("\nfile", ":2: 'file' without a file's name"),
        ("file other.req x", ":1: 'x' is not NAME=value"),
        ("file bad.req", "without an end"),
        ("file none.req", "none.req: can't be read"),
    ],
)
def test_errors_in_request_files_name_file_and_line(tmp_path: Path, text: str, what: str) -> None:
    path = tmp_path / "bad.req"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_request(path, {})
    assert what in str(caught.value)
