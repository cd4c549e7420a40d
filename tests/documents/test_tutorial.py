"""The code of docs/crystal.md runs as it stands there, and what it asserts holds."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
from PIL import Image

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.timeout(600)
def test_tutorial(tmp_path, capsys):
    script = runpy.run_path(str(DOCS / "figures_crystal.py"))
    text = (DOCS / "crystal.md").read_text(encoding="utf-8")
    blocks = list(script["code_blocks"](text))
    assert len(blocks) == text.count("```python\n") > 8
    names = script["run_tutorial"](tmp_path)
    # the tutorial's own asserts have passed; that they were there is for this test to see
    assert names["iou"].min() > 0.9
    assert names["n_good"] == names["n_true"]
    assert "peaks in" in capsys.readouterr().out
    pictures = {path.name for path in tmp_path.glob("*.png")}
    assert pictures
    for name in pictures:
        assert f"(images/{name})" in text
        kept = DOCS / "images" / name
        assert kept.stat().st_size < 250_000
        with Image.open(tmp_path / name) as drawn, Image.open(kept) as stored:
            assert stored.size == drawn.size


def test_failing_code_is_found_at_its_line(tmp_path):
    """A tutorial that is wrong fails, and says in which line."""
    script = runpy.run_path(str(DOCS / "figures_crystal.py"))
    page = "# Title\n\n```python\nx = 1\n```\n\n```python\n\nassert x == 2\n```\n"
    assert list(script["code_blocks"](page)) == [(4, "x = 1\n"), (8, "\nassert x == 2\n")]
    tutorial = tmp_path / "page.md"
    tutorial.write_text(page)
    script["run_tutorial"].__globals__["TUTORIAL"] = tutorial
    with pytest.raises(AssertionError) as failure:
        script["run_tutorial"](tmp_path)
    assert failure.traceback[-1].lineno + 1 == 9
