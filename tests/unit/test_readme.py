"""The README tells what is there: the table of PVs, the two commands, the links."""

import re
from pathlib import Path

import pytest

from tomostream_ioc.config import build_parser
from tomostream_ioc.epics.table import as_markdown, pv_rows

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
TABLE = re.compile(r"<!-- pv-table.*?-->\n(.*?)<!-- end of pv-table -->", re.DOTALL)


def test_pv_table_is_that_of_the_pvgroup():
    found = TABLE.search(README)
    assert found
    assert found[1].strip() == as_markdown(pv_rows()).strip(), (
        "the records have changed: run `python tests/unit/test_readme.py` to write the table"
    )


@pytest.mark.parametrize("target", re.findall(r"^    make (\w+)", README, re.MULTILINE))
def test_named_make_targets_exist(target):
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_named_options_exist():
    help_text = build_parser().format_help()
    for option in re.findall(r"tomostream_ioc [^`\n]*?(--[A-Za-z][\w-]*)", README):
        assert option in help_text or option == "--help", option


def test_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        if not target.startswith("http"):
            assert (ROOT / target).exists(), target


if __name__ == "__main__":
    text = as_markdown(pv_rows())
    with_table = TABLE.sub(
        lambda m: (
            m[0].replace(m[1], text)
            if m[1]
            else m[0][: -len("<!-- end of pv-table -->")] + text + "<!-- end of pv-table -->"
        ),
        README,
    )
    (ROOT / "README.md").write_text(with_table)
