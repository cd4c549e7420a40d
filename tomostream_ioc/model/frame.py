"""A detector frame and its validation: nothing enters the stream that is not a whole image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tomostream_ioc.errors import FieldError, FrameError

#: numeric types that an areaDetector driver can send (NDDataType_t)
FRAME_DTYPES = frozenset(
    np.dtype(name)
    for name in (
        "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64",
        "float32", "float64",
    )
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Frame:
    """One image as it came in.

    ``pixels`` is (n_rows, n_cols) and may be a read-only view onto memory of the transport: whoever
    keeps it longer than the callback copies it. ``timestamp_s`` is the detector's POSIX time,
    ``received_s`` is time.monotonic() at arrival here. ``initial`` marks what the channel held when
    the subscription began or came back: a state, perhaps an old one, and not an event.
    """

    unique_id: int
    pixels: np.ndarray
    timestamp_s: float
    received_s: float
    initial: bool = False

    @property
    def shape(self) -> tuple[int, int]:
        """(n_rows, n_cols)."""
        return self.pixels.shape[0], self.pixels.shape[1]

    @property
    def dtype(self) -> np.dtype:
        return self.pixels.dtype


def frame_pixels(value: np.ndarray, dimensions: Sequence[int]) -> np.ndarray:
    """View a flat pixel array as (n_rows, n_cols), without a copy.

    ``dimensions`` is in areaDetector order: fastest axis first, so (n_cols, n_rows).

    Raises FrameError: not two-dimensional, empty, dimensions that do not fit the data, or a type
    that is no pixel type. Bytes are never reinterpreted.
    """
    if value.dtype not in FRAME_DTYPES:
        raise FrameError("type", f"Frame of type {value.dtype}: not a numeric pixel type")
    if len(dimensions) != 2:
        raise FrameError(
            "dimensions",
            f"Frame with {len(dimensions)} dimensions {tuple(dimensions)}: send a mono 2-D image",
        )
    n_cols, n_rows = (int(size) for size in dimensions)
    if n_cols <= 0 or n_rows <= 0:
        raise FrameError("dimensions", f"Frame of {n_cols} x {n_rows} pixels is empty")
    if value.size != n_cols * n_rows:
        raise FrameError(
            "dimensions",
            f"Frame says {n_cols} x {n_rows} = {n_cols * n_rows} pixels but carries {value.size}",
        )
    return value.reshape(n_rows, n_cols)


def field_pixels(value: np.ndarray, n_cols: int, n_rows: int, kind: str) -> np.ndarray:
    """One averaged dark or flat field as float32 (n_rows, n_cols), copied.

    Raises FieldError: empty, sizes that do not fit the data, no numeric type, or NaN throughout.
    Single NaN or infinite pixels pass: preprocessing replaces and counts them.
    """
    if value.size == 0 or n_cols <= 0 or n_rows <= 0:
        raise FieldError(f"{kind} field is empty: take it again on the tomoScan side")
    if value.dtype not in FRAME_DTYPES:
        raise FieldError(f"{kind} field has type {value.dtype}: send numbers")
    if value.size != n_cols * n_rows:
        raise FieldError(
            f"{kind} field says {n_cols} x {n_rows} pixels but carries {value.size} values"
        )
    field = np.array(value, dtype=np.float32).reshape(n_rows, n_cols)
    bad = int(np.count_nonzero(~np.isfinite(field)))
    if 2 * bad > field.size:
        raise FieldError(f"{kind} field has {bad} of {field.size} pixels that are NaN or infinite")
    return field
