"""Kills a process many times while it saves settings, and reads what is there after each.

Prints one JSON line: what Center was in the file after each kill, and what was wrong.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

from tomostream_ioc.epics.autosave import Autosave
from tomostream_ioc.epics.group import TomoStreamGroup
from tomostream_ioc.model.control import RunStatus

PREFIX = "ref:TomoStream:"
MACROS = {"P": "ref:", "R": "TomoStream:", "RECON_PVA": "ref:TomoStream:StreamRecon"}
REQUEST = Path(__file__).parents[2] / "db" / "auto_settings.req"
SAME = ("OrthoX", "OrthoY", "OrthoZ")


class NoRun:
    """Stands where the run would be, and is asked nothing."""

    def status(self) -> RunStatus:
        return RunStatus()


def settings(folder: Path) -> tuple[Autosave, TomoStreamGroup]:
    run: Any = NoRun()
    group = TomoStreamGroup(PREFIX, macros=MACROS, control=run)
    return Autosave(folder, [REQUEST], MACROS, group), group


def save_for_ever(autosave: Autosave, group: TomoStreamGroup, number: int) -> None:
    """Settings that all are one number, so that a mixture of two saves shows."""
    while True:
        number += 1
        for name in ("Center", *SAME):
            group.records[name].restore(number)
        autosave.save_now()
        if number % 3 == 0:
            autosave.save_sequence()


def main(folder: Path, n_kills: int, seed: int) -> None:
    chance = random.Random(seed)
    found: list[int] = []
    wrong: list[str] = []
    saving = settings(folder)
    for _ in range(n_kills):
        child = os.fork()
        if child == 0:
            save_for_ever(*saving, found[-1] if found else 0)
        time.sleep(chance.uniform(0.001, 0.03))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        autosave, group = settings(folder)
        is_gone = not autosave.path.exists()
        refusals = autosave.restore()
        report = autosave.status.rebooted.text
        values = [int(group.records[name].value) for name in ("Center", *SAME)]
        if (found and report != "Ok") or refusals or len(set(values)) > 1:
            wrong.append(f"{values} {refusals} {report} {sorted(os.listdir(folder))}")
        if not is_gone:
            found.append(values[0])
    print(json.dumps({"found": found, "wrong": wrong}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
