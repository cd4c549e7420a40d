#!/usr/bin/env python3
"""Write the operator screens of db/op/screens as adl/*.adl (MEDM) and bob/*.bob (Phoebus).

python db/op/make_screens.py            write the files
python db/op/make_screens.py --check    exit code 1 if a file is not what would be written
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from screens import adl, bob, crystal, ioc, pv_names, tomostream
from screens.widgets import Screen

FOLDER = Path(__file__).resolve().parent
#: all screens of the product; a new one is a module in screens/ and a line here
SCREENS: list[Screen] = [tomostream.SCREEN, crystal.SCREEN, pv_names.SCREEN, ioc.SCREEN]


def files() -> dict[Path, str]:
    """Path and content of each file."""
    content = {}
    for screen in SCREENS:
        for writer, folder in ((adl, "adl"), (bob, "bob")):
            content[FOLDER / folder / f"{screen.name}{writer.SUFFIX}"] = writer.text_of(screen)
    return content


def main() -> int:
    parser = argparse.ArgumentParser(description="Write the operator screens.")
    parser.add_argument("--check", action="store_true", help="only say which files are not so")
    check = parser.parse_args().check
    stale = {
        path: text
        for path, text in files().items()
        if not path.exists() or path.read_text(encoding="utf-8") != text
    }
    for path, text in stale.items():
        if check:
            print(f"{path} is not what make_screens.py writes: run it", file=sys.stderr)
        else:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
            print(f"written: {path}")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
