"""How long a run may be silent."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Silence:
    """When a run counts as silent, and when it is closed though no other one begins; inf: never."""

    limit_s: float = 300.0
    close_after_s: float = 4 * 3600.0


#: unless a user says otherwise
DEFAULT_SILENCE = Silence()
