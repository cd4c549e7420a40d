"""Unique ids of a frame stream: unwrapped, and every gap, duplicate and disorder told apart."""

from __future__ import annotations

import enum
from dataclasses import dataclass

#: counters that detectors and transports wrap at
_MODULI = (1 << 16, 1 << 31, 1 << 32)
#: how near to its end a counter must have been, and how near to 0 it must be now, for a wrap
_WRAP_MARGIN = 2048
#: as many duplicates in a row, each one more than the last, are a stream that began again
_RESTART_RUN = 8


class Order(enum.Enum):
    """How a frame stands to those before it."""

    NEW = "new"
    LATE = "late"  # fills a gap that a later frame had opened
    DUPLICATE = "duplicate"
    RESTART = "restart"  # the detector counts anew: a new epoch
    REPEATED_STATE = "repeated state"  # a reconnected channel shows the frame that we have


@dataclass(frozen=True, slots=True)
class Placed:
    """``index`` is the unwrapped unique id; ``missed`` is what to add to the count of lost ids."""

    index: int
    order: Order
    missed: int = 0


class SequenceTracker:
    """Follows the unique ids of one stream.

    A late frame is recognised as long as it is at most ``window`` ids behind the newest; an id
    further back starts a new epoch. A 16-bit counter that goes from 65535 to 0 has 65536 values,
    one that goes to 1 has 65535 (GigE Vision reserves block id 0); what was seen first decides for
    a wrap during which frames were lost.
    """

    def __init__(self, window: int = 256) -> None:
        self._window = window
        self.reset()

    def reset(self) -> None:
        self._highest: int | None = None
        self._offset = 0
        self._last_wrap = 0  # modulus of the newest wrap, 0 = none yet
        self._missing: set[int] = set()
        self._uncounted_zero = -1
        self._duplicate_run = 0
        self._last_duplicate = 0

    @property
    def started(self) -> bool:
        return self._highest is not None

    def place(self, unique_id: int, *, reconnected: bool = False) -> Placed:
        """Place a frame by its 32-bit ``unique_id`` (signed or not).

        ``reconnected`` says that it is the first one since the channel came back: it may be the
        newest frame once more, which is no duplicate, and one from before that is a detector that
        has restarted.
        """
        raw = unique_id & 0xFFFFFFFF
        if self._highest is None:
            return self._begin(raw, Order.NEW)
        if raw == 0 and self._last_wrap + 1 in _MODULI:
            self._highest = self._admit_zero(self._highest)
        index = self._unwrap(raw, self._highest)
        if reconnected and index == self._highest:
            return Placed(index, Order.REPEATED_STATE)
        if index > self._highest:
            return self._advance(index, self._highest)
        if index in self._missing:
            self._missing.discard(index)
            missed = 0 if index == self._uncounted_zero else -1
            return Placed(index, Order.LATE, missed)
        far_back = index <= self._highest - self._window
        if far_back or reconnected or self._is_restart_run(index):
            return self._begin(raw, Order.RESTART)
        return Placed(index, Order.DUPLICATE)

    def _begin(self, raw: int, order: Order) -> Placed:
        self.reset()
        self._highest = raw
        return Placed(raw, order)

    def _advance(self, index: int, highest: int) -> Placed:
        gap = index - highest - 1
        self._missing.update(range(max(index - gap, index - self._window), index))
        if gap or len(self._missing) > self._window:
            oldest = index - self._window
            self._missing = {lost for lost in self._missing if lost > oldest}
        self._highest = index
        self._duplicate_run = 0
        return Placed(index, Order.NEW, missed=gap)

    def _unwrap(self, raw: int, highest: int) -> int:
        index = raw + self._offset
        highest_raw = highest - self._offset
        if index > highest:
            # a frame from before the newest wrap that comes late
            if self._last_wrap and 0 <= highest - (index - self._last_wrap) < self._window:
                return index - self._last_wrap
            return index
        if raw > _WRAP_MARGIN:
            return index
        for modulus in _MODULI:
            if modulus - _WRAP_MARGIN <= highest_raw < modulus:
                skips_zero = raw == 1 and highest_raw == modulus - 1
                if self._last_wrap == modulus - 1 or (skips_zero and self._last_wrap != modulus):
                    modulus -= 1
                self._last_wrap = modulus
                self._offset += modulus
                return raw + self._offset
        return index

    def _admit_zero(self, highest: int) -> int:
        """The counter does have a 0, which came late: what came since the wrap moves up by one."""
        self._last_wrap += 1
        zero = self._offset + 1
        self._offset += 1
        self._missing = {lost + 1 if lost >= zero else lost for lost in self._missing}
        self._missing.add(zero)
        self._uncounted_zero = zero
        return highest + 1

    def _is_restart_run(self, index: int) -> bool:
        follows = index == self._last_duplicate + 1
        self._duplicate_run = self._duplicate_run + 1 if follows else 1
        self._last_duplicate = index
        return self._duplicate_run >= _RESTART_RUN
