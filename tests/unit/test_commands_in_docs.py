"""The commands that README and docs show are commands that the programs take."""

import re
import shlex
from pathlib import Path

import pytest

from tomostream_ioc.bench.cli import build_parser as bench_parser
from tomostream_ioc.config import parse
from tomostream_ioc.documents.commands import build_parser as documents_parser
from tomostream_ioc.offline.cli import build_parser as recon_parser
from tomostream_ioc.sim.cli import parse as parse_sim

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
#: in a block of code, with options that go on behind a backslash
COMMAND = re.compile(
    r"^    (?:\S*/)?(?:python -m tomostream_ioc|tomostream-ioc)(\.\w+)? (.*)$", re.M
)
PARSERS = {
    None: lambda argv: parse(argv, lambda _: {}),
    ".sim": parse_sim,
    ".recon": lambda argv: recon_parser().parse_args(argv),
    ".bench": lambda argv: bench_parser().parse_args(argv),
    ".documents": lambda argv: documents_parser(argv).parse_args(argv),
}


def commands():
    for page in PAGES:
        text = page.read_text().replace("\\\n", " ")
        for module, options in COMMAND.findall(text):
            if "[" not in options:  # what may be left out
                yield pytest.param(module or None, options, id=f"{page.name}: {options[:40]}")


@pytest.mark.parametrize(("module", "options"), list(commands()))
def test_command_is_understood(module, options):
    PARSERS[module](shlex.split(options, comments=True))


def test_there_are_such_commands():
    assert len(list(commands())) >= 7
