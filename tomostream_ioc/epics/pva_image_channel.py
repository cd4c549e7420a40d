"""One served NTNDArray channel of slices, which is filled only while somebody looks at it."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace

import numpy as np
from p4p.server.raw import SharedPV

from tomostream_ioc.epics.ntndarray import alarm_value, image_value, mono_attributes
from tomostream_ioc.epics.slice_image import combined_shape, draw_combined
from tomostream_ioc.model.control import Alarm
from tomostream_ioc.model.slices import SliceMeta, Slices

_EMPTY = np.empty((0, 0), np.float32)
_MAX_INT32 = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Shown:
    """What all channels show: the newest slices, and the alarm on them."""

    slices: Slices | None = None
    meta: SliceMeta | None = None
    unique_id: int = 0
    crosshair: bool = True
    alarm: Alarm | None = None

    def with_slices(self, slices: Slices, meta: SliceMeta, crosshair: bool) -> Shown:
        return replace(self._next(), slices=slices, meta=meta, crosshair=crosshair)

    def with_crosshair(self, crosshair: bool) -> Shown:
        return replace(self._next(), crosshair=crosshair)

    def with_alarm(self, alarm: Alarm | None) -> Shown:
        return replace(self, alarm=alarm)

    def _next(self) -> Shown:
        # uniqueId is a 32-bit integer on the wire
        return replace(self, unique_id=self.unique_id % _MAX_INT32 + 1)


class ImageChannel:
    """The SharedPV of one channel.

    p4p copies the pixels with the GIL held (0.5 ms a megabyte), so a channel without clients gets
    none; the first client to connect is given the newest before its connection is confirmed.
    """

    def __init__(self, suffix: str, shown: Shown):
        self._suffix = suffix
        self._lock = threading.Lock()
        self._shown = shown
        self._stale = shown.slices is not None
        self._watched = False
        self._buffer = _EMPTY
        self.pv = SharedPV(
            handler=self,
            initial=image_value(_EMPTY, 0, attributes=mono_attributes(), alarm=shown.alarm),
        )

    def show(self, shown: Shown) -> None:
        with self._lock:
            self._shown, self._stale = shown, shown.slices is not None
            if self._watched:
                self._post()

    def set_alarm(self, shown: Shown) -> None:
        """Change the alarm; the image stays."""
        with self._lock:
            self._shown = shown
            self.pv.post(alarm_value(shown.alarm))

    def onFirstConnect(self, _pv: SharedPV) -> None:  # noqa: N802 - p4p's name
        with self._lock:
            self._watched = True
            self._post()

    def onLastDisconnect(self, _pv: SharedPV) -> None:  # noqa: N802 - p4p's name
        with self._lock:
            self._watched = False

    def _post(self) -> None:
        shown = self._shown
        if not self._stale or shown.slices is None or shown.meta is None:
            return
        value = image_value(
            self._image(shown.slices, shown.meta, shown.crosshair),
            shown.unique_id,
            attributes=_attributes(shown.meta),
            data_time_s=shown.meta.newest_timestamp_s,
            alarm=shown.alarm,
        )
        self.pv.post(value)
        self._stale = False

    def _image(self, slices: Slices, meta: SliceMeta, crosshair: bool) -> np.ndarray:
        if self._suffix:
            image = getattr(slices, self._suffix.lower())
            return np.ascontiguousarray(image, dtype=np.float32)
        shape = combined_shape(slices)
        if self._buffer.shape != shape:
            self._buffer = np.zeros(shape, np.float32)
        draw_combined(self._buffer, slices, meta.params, crosshair)
        return self._buffer


def _attributes(meta: SliceMeta) -> dict[str, tuple[str, object]]:
    params = meta.params
    return mono_attributes(
        Center=("d", params.center),
        OrthoX=("i", params.ortho_x),
        OrthoY=("i", params.ortho_y),
        OrthoZ=("i", params.ortho_z),
        RotX=("d", params.rot_x_deg),
        RotY=("d", params.rot_y_deg),
        RotZ=("d", params.rot_z_deg),
        FilterType=("s", params.filter_type),
        NewestId=("l", meta.newest_id),
        OldestId=("l", meta.oldest_id),
        NumAngles=("i", meta.n_angles),
        Binning=("i", meta.binning),
    )
