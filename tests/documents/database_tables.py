"""The SQLite tables of a database, which somebody may take away while it is in use."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path


class Tables:
    """The tables of a database; those that a run has rows in may be taken away and brought back."""

    def __init__(self, file: Path):
        self.file = file
        self._before = self._rows()
        self._away: list[str] = []

    def _rows(self) -> dict[str, int]:
        with contextlib.closing(sqlite3.connect(self.file)) as other:
            listed = list(other.execute("SELECT name FROM sqlite_master WHERE type = 'table'"))
            names = [name for (name,) in listed if name.startswith("table_")]
            return {n: other.execute(f"SELECT count(*) FROM {n}").fetchone()[0] for n in names}

    def _rename(self, names: list[str], there: str, then: str) -> None:
        with contextlib.closing(sqlite3.connect(self.file, isolation_level=None)) as other:
            for name in names:
                other.execute(f"ALTER TABLE {there}{name} RENAME TO {then}{name}")

    def away(self) -> None:
        """Those that have more rows than before; one that begins a run is made where it is not."""
        grown = [name for name, n in self._rows().items() if n > self._before.get(name, 0)]
        assert grown
        self._away = grown
        self._rename(grown, "", "away_")

    def back(self) -> None:
        self._rename(self._away, "away_", "")
        self._away = []
