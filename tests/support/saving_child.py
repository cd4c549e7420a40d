"""Kills a process many times while it saves settings, and reads what is there after each.

``FOLDER random N SEED`` kills at N random moments, ``FOLDER steps`` before each step of a save with
a file. Prints one JSON line: what Center was in the file after each kill, and what was wrong.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tomostream_ioc.epics.autosave import Autosave
from tomostream_ioc.epics.group import TomoStreamGroup
from tomostream_ioc.model.control import RunStatus

PREFIX = "ref:TomoStream:"
MACROS = {"P": "ref:", "R": "TomoStream:", "RECON_PVA": "ref:TomoStream:StreamRecon"}
REQUEST = Path(__file__).parents[2] / "db" / "auto_settings.req"
STEPS = {"open", "os.rename", "os.remove", "os.link", "os.truncate"}
SAME = ("OrthoX", "OrthoY", "OrthoZ")


class NoRun:
    """Stands where the run would be, and is asked nothing."""

    def status(self) -> RunStatus:
        return RunStatus()


def settings(folder: Path) -> tuple[Autosave, TomoStreamGroup]:
    run: Any = NoRun()
    group = TomoStreamGroup(PREFIX, macros=MACROS, control=run)
    return Autosave(folder, [REQUEST], MACROS, group), group


def save(autosave: Autosave, group: TomoStreamGroup, number: int) -> None:
    """Settings that all are one number, so that a mixture of two saves shows."""
    for name in ("Center", *SAME):
        group.records[name].restore(number)
    autosave.save_now()
    if number % 3 == 0:
        autosave.save_sequence()


def what_is_there(folder: Path) -> tuple[int, str]:
    """Center after a restore, and what is wrong with it."""
    autosave, group = settings(folder)
    refusals = autosave.restore()
    report = autosave.status.rebooted.text
    values = [int(group.records[name].value) for name in ("Center", *SAME)]
    is_wrong = report != "Ok" or refusals or len(set(values)) > 1
    found = f"{values} {refusals} {report} {sorted(os.listdir(folder))}"
    return values[0], found if is_wrong else ""


def killed_at_random(folder: Path, n_kills: int, seed: int) -> tuple[list[int], list[str]]:
    chance = random.Random(seed)
    autosave, group = settings(folder)
    for number in range(8):  # all files are there
        save(autosave, group, number)
    found, wrong = [7], []
    for _ in range(n_kills):
        child = os.fork()
        if child == 0:
            for number in itertools.count(found[-1] + 1):
                save(autosave, group, number)
        time.sleep(chance.uniform(0.001, 0.03))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        center, fault = what_is_there(folder)
        found.append(center)
        wrong.append(fault)
    return found, wrong


def killed_at_each_step(folder: Path) -> tuple[list[int], list[str]]:
    autosave, group = settings(folder)
    for number in range(8):  # all files are there
        save(autosave, group, number)
    found, wrong = [], []
    for n_steps in itertools.count():
        child = os.fork()
        if child == 0:
            sys.addaudithook(killer(folder, n_steps))
            save(autosave, group, 9)
            os._exit(0)
        is_done = os.waitpid(child, 0)[1] == 0
        center, fault = what_is_there(folder)
        found.append(center)
        wrong.append(fault)
        if is_done:
            return found, wrong
        save(autosave, group, 7)
    raise RuntimeError("itertools.count has an end")


def killer(folder: Path, n_steps: int) -> Callable[[str, tuple[Any, ...]], None]:
    """Ends the process before a step with a file of the folder, after ``n_steps`` of them."""
    left = n_steps

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal left
        if event in STEPS and str(folder) in str(arguments[0]):
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1

    return hook


def main(folder: Path, how: str, *numbers: str) -> None:
    if how == "random":
        found, wrong = killed_at_random(folder, *map(int, numbers))
    else:
        found, wrong = killed_at_each_step(folder)
    print(json.dumps({"found": found, "wrong": [fault for fault in wrong if fault]}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
