"""Which slices are wanted, and which detector rows have to be read for them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tomostream_ioc.errors import ConfigError

_SLICE = re.compile(r"([xyz])=(.+)")
_RANGE = re.compile(r"(\d+):(\d+)(?::(\d+))?")
#: rows that lie between two wanted ones are read along up to that many: one pass less
_GAP_ROWS = 16


@dataclass(frozen=True, slots=True)
class Wanted:
    """Indices of the wanted slices along each axis, sorted, each once."""

    z: tuple[int, ...] = ()
    y: tuple[int, ...] = ()
    x: tuple[int, ...] = ()

    @classmethod
    def parse(cls, texts: Iterable[str], n_rows: int, n_cols: int) -> Wanted:
        """From ``z=67``, ``y=70,80`` or ``z=0:100:10`` (end not included); nothing: the middle.

        Raises ConfigError: not understood, or outside the scan.
        """
        found: dict[str, set[int]] = {"z": set(), "y": set(), "x": set()}
        for text in texts:
            match = _SLICE.fullmatch(text.strip())
            if match is None:
                raise ConfigError(f"--slice {text}: use z=67, y=70,80 or x=0:100:10")
            axis, places = match.groups()
            size = n_rows if axis == "z" else n_cols
            for part in _ranges(places, text):
                if part[-1] >= size:
                    raise ConfigError(f"--slice {text}: {axis} {part[-1]} is outside 0..{size - 1}")
                found[axis].update(part)
        if not any(found.values()):
            return cls((n_rows // 2,), (n_cols // 2,), (n_cols // 2,))
        return cls(*(tuple(sorted(found[axis])) for axis in "zyx"))

    def __len__(self) -> int:
        return len(self.z) + len(self.y) + len(self.x)


@dataclass(frozen=True, slots=True)
class Block:
    """Detector rows ``first``..``end`` are read; those of ``core_first``..``core_end`` are shown.

    The rows around the core are there for filters that look at neighbours.
    """

    first: int
    end: int
    core_first: int
    core_end: int

    @property
    def n_rows(self) -> int:
        return self.end - self.first


def blocks(
    wanted: Wanted, n_rows: int, most_rows: int, margin: int, whole: bool = False
) -> list[Block]:
    """Blocks of at most ``most_rows`` rows that hold every row that the slices need.

    ``margin`` rows are added on both sides where the detector has them. ``whole``: one block of
    all rows. Raises ConfigError: the memory does not hold a single row with its margin.
    """
    if whole:
        if n_rows > most_rows:
            raise ConfigError(
                f"phase retrieval and a tilt about z need all {n_rows} rows at once, but the "
                f"memory holds {most_rows} of this scan: use fewer rows, or more memory"
            )
        return [Block(0, n_rows, 0, n_rows)]
    core = most_rows - 2 * margin
    if core < 1:
        raise ConfigError(f"the memory holds {max(most_rows, 0)} rows of this scan: too few")
    needed: Sequence[int] = range(n_rows) if wanted.y or wanted.x else wanted.z
    found: list[Block] = []
    i = 0
    while i < len(needed):
        first = needed[i]
        while i + 1 < len(needed) and _together(first, needed[i], needed[i + 1], core):
            i += 1
        end = needed[i] + 1
        found.append(Block(max(first - margin, 0), min(end + margin, n_rows), first, end))
        i += 1
    return found


def _together(first: int, row: int, following: int, core: int) -> bool:
    return following - row <= _GAP_ROWS and following - first < core


def _ranges(places: str, text: str) -> list[range]:
    """None of them empty; a single index is a range too."""
    result: list[range] = []
    for part in places.split(","):
        match = _RANGE.fullmatch(part)
        if match is not None:
            start, end, step = (int(number or 1) for number in match.groups())
            if step == 0 or end <= start:
                raise ConfigError(f"--slice {text}: {part} is an empty range")
            result.append(range(start, end, step))
        elif part.isdecimal():
            result.append(range(int(part), int(part) + 1))
        else:
            raise ConfigError(f"--slice {text}: {part!r} is no index")
    return result
