"""The dark, flat and theta channels: one array and its sizes, taken when they have settled."""

from __future__ import annotations

import threading
import time

import numpy as np
from p4p import Value

from tomostream_ioc.epics.ntndarray import frame_of, is_image
from tomostream_ioc.errors import FieldError, FrameError, ThetaError
from tomostream_ioc.model.control import StreamHandler
from tomostream_ioc.model.frame import field_pixels

# tomoScan writes value, sizex and sizey one after the other and each write is an update of its
# own: old sizes with new values in between, and the same field up to three times.
_SETTLE_S = 0.05
_SETTLE_MAX_S = 0.5


class SettledConsumer:
    """Keeps the newest update until none has followed it for a moment, then calls ``settled``."""

    what = ""

    def __init__(self, channel: str, handler: StreamHandler):
        self.channel = channel
        self.deadline_s: float | None = None
        self.told = threading.Event()  # the handler knows what the channel held at first
        self._handler = handler
        self._pending: Value | None = None
        self._latest_s = 0.0  # settled or not, the pending update is taken then
        self._initial = True

    def update(self, value: Value, first: bool) -> None:
        now_s = time.monotonic()
        if self._pending is None:
            self._latest_s = now_s + _SETTLE_MAX_S
        self._initial = self._initial or first
        self._pending = value
        self.deadline_s = min(now_s + _SETTLE_S, self._latest_s)

    def due(self) -> None:
        value, self._pending, self.deadline_s = self._pending, None, None
        initial, self._initial = self._initial, False
        if value is not None:
            self.settled(value, initial)
            self.told.set()

    def connection(self, connected: bool) -> None:
        self._handler.on_connection(self.what, self.channel, connected)

    def settled(self, value: Value, initial: bool) -> None:
        """``initial``: what the channel held when it connected; empty means not there yet."""
        raise NotImplementedError


class FieldConsumer(SettledConsumer):
    """One averaged dark or flat field: {float[] value, int sizex, int sizey} or an NTNDArray."""

    def __init__(self, kind: str, channel: str, handler: StreamHandler, max_bytes: int):
        super().__init__(channel, handler)
        self.what = kind
        self._max_bytes = max_bytes

    def settled(self, value: Value, initial: bool) -> None:
        try:
            field = self._field(value, initial)
        except (FieldError, FrameError) as error:
            self._handler.on_field_rejected(self.what, str(error))
        else:
            if field is not None:
                self._handler.on_field(self.what, field)

    def _field(self, value: Value, initial: bool) -> np.ndarray | None:
        if is_image(value):
            frame = frame_of(value, self._max_bytes)
            data = np.empty(0, np.float32) if frame is None else frame.pixels.reshape(-1)
            n_rows, n_cols = (0, 0) if frame is None else frame.shape
        else:
            data = value.get("value")
            n_cols, n_rows = value.get("sizex"), value.get("sizey")
            if not isinstance(n_cols, int) or not isinstance(n_rows, int):
                raise FieldError(
                    f"{self.what} field comes without sizex and sizey: "
                    f"is {self.channel} the right channel?"
                )
        data = _numbers(data)
        if data is None:
            raise FieldError(f"{self.what} field carries no numbers: is {self.channel} right?")
        if data.size == 0 and initial:
            return None
        return field_pixels(data, n_cols, n_rows, self.what)


class ThetaConsumer(SettledConsumer):
    """The angle of every frame: {float[] value, int sizex} or an NTScalarArray, degrees."""

    what = "theta"
    _came = False

    def settled(self, value: Value, initial: bool) -> None:
        try:
            theta_deg = self._theta(value, initial)
        except ThetaError as error:
            self._handler.on_theta_rejected(str(error))
        else:
            if theta_deg is not None:
                self._came = True
                self._handler.on_theta(theta_deg)

    def _theta(self, value: Value, initial: bool) -> np.ndarray | None:
        data = _numbers(value.get("value"))
        if data is None:
            raise ThetaError(f"theta carries no numbers: is {self.channel} the right channel?")
        n_angles = value.get("sizex")
        if isinstance(n_angles, int) and 0 < n_angles < data.size:
            data = data[:n_angles]
        if data.size == 0:
            # posted empty again before a scan: still not there
            if initial or not self._came:
                return None
            raise ThetaError("theta is empty: start the scan on the tomoScan side")
        return np.array(data, dtype=np.float64)


def _numbers(data: object) -> np.ndarray | None:
    """A numeric array; None for anything else (text, a scalar, a structure)."""
    if data is None:  # an array that was never set
        return np.empty(0, np.float32)
    if isinstance(data, np.ndarray) and data.dtype.kind in "iuf":
        return data
    return None
