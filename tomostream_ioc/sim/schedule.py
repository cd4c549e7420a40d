"""Which stored projection and which angle belong to frame k of a scan that never ends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from tomostream_ioc.errors import ConfigError

ScanType = Literal["backforth", "continuous"]


@dataclass(frozen=True, slots=True)
class Schedule:
    """One pass of angles, repeated.

    ``continuous``: the pass covers one whole turn, and angles grow by 360 with every pass.
    ``backforth``: every second pass runs backwards, as tomoScan's backforth scan does.
    """

    scan_type: ScanType
    pass_theta_deg: np.ndarray

    def __post_init__(self) -> None:
        theta = self.pass_theta_deg
        if self.scan_type == "continuous" and theta.size > 1:
            turn = float(theta[-1] - theta[0]) * theta.size / (theta.size - 1)
            if abs(abs(turn) - 360.0) > 0.5 * abs(turn) / theta.size:
                raise ConfigError(
                    f"the scan covers {abs(turn):.4g} degrees, a continuous one needs a whole "
                    "turn: use --scan-type backforth"
                )

    @property
    def n_pass(self) -> int:
        return self.pass_theta_deg.size

    def projection_index(self, k: int) -> int:
        """Index into the pass of frame k (from 0)."""
        turn, i = divmod(k, self.n_pass)
        return self.n_pass - 1 - i if self.scan_type == "backforth" and turn % 2 else i

    def theta_deg(self, n_turns: int) -> np.ndarray:
        """What tomoScan broadcasts: the angle of each frame, float64, for about n_turns turns.

        A back-and-forth array always ends with a whole forward and backward pair, so that it can be
        repeated for ever.
        """
        theta = self.pass_theta_deg.astype(np.float64)
        if self.scan_type == "backforth":
            return np.tile(np.concatenate([theta, theta[::-1]]), n_turns)
        sense = 1.0 if theta.size < 2 or theta[1] > theta[0] else -1.0
        return (theta[None, :] + sense * 360.0 * np.arange(n_turns)[:, None]).ravel()
