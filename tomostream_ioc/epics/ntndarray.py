"""NTNDArray, the areaDetector's image over PVA: read into a Frame, and built from an array."""

from __future__ import annotations

import time
from collections.abc import Mapping

import numpy as np
from p4p import Value
from p4p.nt import NTNDArray

from tomostream_ioc.epics.codecs import decode_pixels
from tomostream_ioc.errors import FrameError
from tomostream_ioc.model.control import Alarm
from tomostream_ioc.model.frame import Frame, frame_pixels

#: all that a frame needs; an areaDetector's attributes (tens of them) are not sent at all
IMAGE_FIELDS = "field(value,dimension,uniqueId,codec,dataTimeStamp,timeStamp)"

IMAGE_TYPE = NTNDArray.buildType()

#: EPICS alarm status names -> the coarser alarm_t.status of the normative types
_ALARM_STATUS = {
    "NO_ALARM": 0,
    **dict.fromkeys(("READ", "WRITE", "HW_LIMIT"), 1),  # device
    **dict.fromkeys(("COMM", "TIMEOUT", "LINK"), 2),  # driver
    **dict.fromkeys(("UDF",), 6),  # undefined
}
_ALARM_RECORD = 3


def frame_of(value: Value, max_bytes: int = 1 << 30, *, initial: bool = False) -> Frame | None:
    """The frame in an NTNDArray, or None for one that holds no image (a channel just created).

    ``initial`` is passed on to the Frame. Pixels are a read-only view onto the transport's
    memory, or an array of their own where they came compressed.

    Raises FrameError: no NTNDArray, dimensions that do not fit the data, a type that is no pixel
    type, or a codec that can't be decoded.
    """
    received_s = time.monotonic()
    try:
        data = value["value"]
        dimensions = [axis["size"] for axis in value["dimension"]]
        unique_id = value["uniqueId"]
        codec = value.get("codec.name")
    except (KeyError, TypeError, AttributeError) as error:
        raise FrameError(
            "structure", f"The image channel sends no NTNDArray ({error.args[0]})"
        ) from error
    if data is None or (len(data) == 0 and not dimensions):
        return None
    if not isinstance(data, np.ndarray):
        raise FrameError("type", f"Frame of type {type(data).__name__}: not a numeric pixel type")
    if codec:
        data = decode_pixels(codec, data, value.get("codec.parameters"), dimensions, max_bytes)
    pixels = frame_pixels(data, dimensions)
    return Frame(unique_id, pixels, _timestamp_s(value), received_s, initial)


def _timestamp_s(value: Value) -> float:
    """The detector's time; where the driver sets none, that of the update."""
    for name in ("dataTimeStamp", "timeStamp"):
        seconds = value.get(name + ".secondsPastEpoch")
        if seconds:
            return seconds + 1e-9 * value.get(name + ".nanoseconds", 0)
    return 0.0


def image_value(
    image: np.ndarray,
    unique_id: int,
    *,
    attributes: Mapping[str, tuple[str, object]],
    data_time_s: float = 0.0,
    alarm: Alarm | None = None,
) -> Value:
    """An NTNDArray with a float32 image (n_rows, n_cols), as an areaDetector would send it.

    ``attributes`` maps a name to its p4p type code and value: ImageJ's viewer takes ColorMode as
    a 32-bit integer only. An image of no pixels gets no dimensions. The pixels are copied.
    """
    value = Value(IMAGE_TYPE)
    value["value"] = ("floatValue", image.reshape(-1))
    value["codec.name"] = ""
    value["compressedSize"] = value["uncompressedSize"] = image.nbytes
    value["uniqueId"] = unique_id
    value["dimension"] = [
        {"size": size, "offset": 0, "fullSize": size, "binning": 1, "reverse": False}
        for size in (reversed(image.shape) if image.size else ())
    ]
    value["attribute"] = [
        {"name": name, "value": typed, "sourceType": 0} for name, typed in attributes.items()
    ]
    now_s = time.time()
    _set_time(value, "timeStamp", now_s)
    _set_time(value, "dataTimeStamp", data_time_s or now_s)
    set_alarm(value, alarm)
    return value


def alarm_value(alarm: Alarm | None) -> Value:
    """An update of an NTNDArray that changes its alarm and time stamp and nothing else."""
    value = Value(IMAGE_TYPE)
    _set_time(value, "timeStamp", time.time())
    set_alarm(value, alarm)
    return value


def set_alarm(value: Value, alarm: Alarm | None) -> None:
    value["alarm.severity"] = alarm.severity if alarm else 0
    value["alarm.status"] = _ALARM_STATUS.get(alarm.status, _ALARM_RECORD) if alarm else 0
    value["alarm.message"] = alarm.message if alarm else "NO_ALARM"


def _set_time(value: Value, name: str, posix_s: float) -> None:
    seconds = int(posix_s)
    value[name + ".secondsPastEpoch"] = seconds
    value[name + ".nanoseconds"] = int((posix_s - seconds) * 1e9)


def mono_attributes(**extra: tuple[str, object]) -> dict[str, tuple[str, object]]:
    return {"ColorMode": ("i", 0), **extra}


def wire_bytes(value: Value) -> int:
    """Bytes of pixels in one update as it came, 0 when there are none."""
    data = value.get("value")
    return data.nbytes if isinstance(data, np.ndarray) else 0


def is_image(value: Value) -> bool:
    return "dimension" in value and "uniqueId" in value
