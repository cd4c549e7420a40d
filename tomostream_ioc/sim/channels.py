"""The PVA channels of the simulated scan: structures and names as the real ones have."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from p4p import Type, Value
from p4p.nt import NTNDArray
from p4p.server import Server, StaticProvider
from p4p.server.thread import SharedPV

_UNION_MEMBER = {
    "int8": "byteValue",
    "uint8": "ubyteValue",
    "int16": "shortValue",
    "uint16": "ushortValue",
    "int32": "intValue",
    "uint32": "uintValue",
    "int64": "longValue",
    "uint64": "ulongValue",
    "float32": "floatValue",
    "float64": "doubleValue",
}


class _Connected:
    """SharedPV handler that notes the first client of a channel."""

    def __init__(self, event: threading.Event) -> None:
        self._event = event

    def onFirstConnect(self, pv: SharedPV) -> None:  # noqa: N802 - p4p's name
        self._event.set()

    def onLastDisconnect(self, pv: SharedPV) -> None:  # noqa: N802 - p4p's name
        self._event.clear()


class ImageChannel:
    """NTNDArray frames; before the first an empty NTNDArray, as an areaDetector serves it."""

    def __init__(self) -> None:
        self.client_connected = threading.Event()
        self._type: Type = NTNDArray.buildType()
        # NTNDArray.wrap would send uniqueId 0 and an int64 ColorMode, which ImageJ's viewer ignores
        self._color_mode = {
            "name": "ColorMode",
            "value": ("i", 0),
            "descriptor": "Color mode",
            "source": "Driver",
        }
        empty = Value(self._type, {"attribute": [self._color_mode]})
        self.pv = SharedPV(handler=_Connected(self.client_connected), initial=empty)

    def post(self, frame: np.ndarray, unique_id: int, binning: int) -> None:
        now_ns = time.time_ns()
        stamp = {"secondsPastEpoch": now_ns // 10**9, "nanoseconds": now_ns % 10**9}
        self.pv.post(
            Value(
                self._type,
                {
                    "value": (_UNION_MEMBER[frame.dtype.name], np.ravel(frame)),
                    "compressedSize": frame.nbytes,
                    "uncompressedSize": frame.nbytes,
                    "uniqueId": unique_id,
                    "dataTimeStamp": stamp,
                    "timeStamp": {**stamp, "userTag": unique_id},
                    "dimension": [
                        {"size": size, "fullSize": size, "binning": binning}
                        for size in reversed(frame.shape)
                    ],
                    "attribute": [self._color_mode],
                },
            )
        )


class FieldChannel:
    """{float[] value, int sizex, int sizey}: one averaged dark or flat field."""

    def __init__(self) -> None:
        self._type = Type([("value", "af"), ("sizex", "i"), ("sizey", "i")])
        self.pv = SharedPV(initial=Value(self._type, {}))

    def post(self, field: np.ndarray) -> None:
        n_rows, n_cols = field.shape
        value = np.ravel(field).astype(np.float32)
        self.pv.post(Value(self._type, {"value": value, "sizex": n_cols, "sizey": n_rows}))


class ThetaChannel:
    """{float[] value, int sizex}: the angle of every frame of the scan, degrees."""

    def __init__(self) -> None:
        self._type = Type([("value", "af"), ("sizex", "i")])
        self.pv = SharedPV(initial=Value(self._type, {}))

    def post(self, theta_deg: np.ndarray) -> None:
        value = theta_deg.astype(np.float32)
        self.pv.post(Value(self._type, {"value": value, "sizex": value.size}))


class Channels:
    """The four channels behind one PVA server; ``names`` has image, dark, flat and theta.

    ``conf`` takes EPICS_PVAS_* keys, over those of the environment.
    """

    def __init__(self, names: Mapping[str, str]) -> None:
        self.image = ImageChannel()
        self.dark = FieldChannel()
        self.flat = FieldChannel()
        self.theta = ThetaChannel()
        self.names = dict(names)
        self._provider = StaticProvider("tomostream_sim")
        self._pvs: dict[str, SharedPV] = {
            "image": self.image.pv,
            "dark": self.dark.pv,
            "flat": self.flat.pv,
            "theta": self.theta.pv,
        }
        for key, pv in self._pvs.items():
            self._provider.add(self.names[key], pv)
        self._server: Server | None = None

    def serve(self, conf: Mapping[str, str]) -> Mapping[str, Any]:
        """Start the server; returns the configuration that it really uses.

        Raises OSError: the port of searches is in use, or an interface is not there.
        """
        try:
            server = Server(providers=[self._provider], conf=dict(conf))
        except RuntimeError as error:  # p4p's for whatever the system refuses
            raise OSError(f"PVA: {error} (EPICS_PVAS_BROADCAST_PORT, --interfaces)") from error
        self._server = server
        return server.conf()

    def close(self) -> None:
        if self._server is not None:
            self._server.stop()
        for pv in self._pvs.values():
            pv.close()
