"""One run derived from another: its start, descriptors, event pages and stop."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Literal, cast

import numpy as np
from event_model import ComposeDescriptorBundle, compose_run

from tomostream_ioc import __version__

Emit = Callable[[str, Any], None]
ExitStatus = Literal["success", "abort", "fail"]

#: between rows of a page
_ROW_S = 1e-6
#: of the parent's start document, what is its own and not the sample's or the scan's
_OWN_KEYS = frozenset({"uid", "time", "hints", "data_groups", "projections", "frame_key"})


class DerivedRun:
    """Composes documents with event_model and passes them to ``emit``.

    The start document carries on the parent's (shape, extents, sample...) and adds
    `analysis_stage`, `analysis_parameters`, `analysis_software`, `parent_run_uid` (also as
    `original_run_uid`, the name that bluesky's LiveDispatcher uses) and `root_run_uid`. Descriptors
    are made from the arrays themselves, so that dtype and shape are true.
    """

    def __init__(
        self,
        parent: Mapping[str, Any],
        stage: str,
        parameters: Mapping[str, Any],
        emit: Emit,
        extra: Mapping[str, Any],
    ):
        metadata = {key: value for key, value in parent.items() if key not in _OWN_KEYS}
        metadata |= {
            "analysis_stage": stage,
            "analysis_parameters": plain(parameters),
            "analysis_software": f"tomostream_ioc {__version__}",
            "parent_run_uid": parent["uid"],
            "original_run_uid": parent["uid"],
            "root_run_uid": parent.get("root_run_uid", parent["uid"]),
            **extra,
        }
        self.parent_uid: str = parent["uid"]
        self.problems: Counter[str] = Counter()
        self._first_error = ""
        self._time = 0.0  # of the last row
        self._emit = emit
        self._stage = stage
        self._bundle = compose_run(metadata=metadata)
        self._streams: dict[str, ComposeDescriptorBundle] = {}
        self.start_doc = cast("dict[str, Any]", self._bundle.start_doc)
        emit("start", self.start_doc)

    @property
    def uid(self) -> str:
        return self.start_doc["uid"]

    def problem(self, what: str, n: int = 1, error: BaseException | str = "") -> None:
        """Something is missing from this run: ``what`` counts in its stop document's reason."""
        self.problems[what] += n
        if error and not self._first_error:
            self._first_error = str(error)

    def event(self, values: Mapping[str, Any], taken: float, stream: str = "primary") -> None:
        """One event; ``taken`` is the time at which its data were taken (seconds since 1970)."""
        arrays = {key: np.asarray(value) for key, value in values.items()}
        bundle = self._describe(stream, {key: a[np.newaxis] for key, a in arrays.items()})
        data = {key: a if a.ndim else a.item() for key, a in arrays.items()}
        # not validated here: event_model would look at each pixel
        self._emit(
            "event",
            bundle.compose_event(data=data, timestamps=dict.fromkeys(data, taken), validate=False),
        )

    def page(self, columns: Mapping[str, Any], taken: Any, stream: str = "primary") -> None:
        """One event per row: ``columns`` of (n_rows, ...), ``taken`` one time, or one per row."""
        data = {key: np.asarray(value) for key, value in columns.items()}
        n_rows = len(next(iter(data.values())))
        if not n_rows:
            return
        bundle = self._describe(stream, data)
        stamps = np.array(np.broadcast_to(np.asarray(taken, np.float64), n_rows))
        # a microsecond apart: databroker 1.x reads events back in the order of their times
        self._time = max(time.time(), self._time + _ROW_S)
        times = self._time + _ROW_S * np.arange(n_rows)
        self._time = float(times[-1])
        page = bundle.compose_event_page(
            data=cast(Any, data),
            timestamps=dict.fromkeys(data, stamps),
            uid=_uids(n_rows),
            time=times.tolist(),
            validate=False,
        )
        self._emit("event_page", page)

    def stop(self, status: str, reason: str) -> bool:
        """Close the run as its parent was closed, or as failed where something is missing.

        Returns whether the run is whole.
        """
        parts = [reason] if reason else []
        parts += [f"{n} {what}" for what, n in self.problems.items()]
        if self._first_error:
            parts.append(f"the first error: {self._first_error}")
        if status == "success" and self.problems:
            status = "fail"
        known = status if status in ("success", "abort", "fail") else "fail"
        self._emit(
            "stop",
            self._bundle.compose_stop(exit_status=cast(ExitStatus, known), reason="; ".join(parts)),
        )
        return known == "success"

    def _describe(self, stream: str, columns: Mapping[str, np.ndarray]) -> ComposeDescriptorBundle:
        bundle = self._streams.get(stream)
        if bundle is None:
            keys = {key: _data_key(column, self._stage) for key, column in columns.items()}
            bundle = self._bundle.compose_descriptor(
                name=stream,
                data_keys=cast(Any, keys),
                object_keys={self._stage: list(keys)},
                hints=cast(
                    Any, {self._stage: {"fields": [k for k in keys if not keys[k]["shape"]]}}
                ),
            )
            self._streams[stream] = bundle
            self._emit("descriptor", bundle.descriptor_doc)
        return bundle


def _data_key(column: np.ndarray, source: str) -> dict[str, Any]:
    """Of a column (n_rows, ...): what one row holds."""
    shape = list(column.shape[1:])
    if shape:
        dtype = "array"
    else:
        dtype = {"i": "integer", "u": "integer", "b": "boolean", "f": "number"}.get(
            column.dtype.kind, "string"
        )
    return {
        "dtype": dtype,
        "dtype_numpy": column.dtype.str,
        "shape": shape,
        "source": f"tomostream_ioc:{source}",
    }


def _uids(n: int) -> list[str]:
    """``n`` random ones (version 4), as uuid.uuid4 makes one: from one call to the system."""
    raw = np.frombuffer(os.urandom(16 * n), np.uint8).reshape(n, 16).copy()
    raw[:, 6] = raw[:, 6] & 0x0F | 0x40
    raw[:, 8] = raw[:, 8] & 0x3F | 0x80
    text = raw.tobytes().hex()
    return [
        f"{text[i : i + 8]}-{text[i + 8 : i + 12]}-{text[i + 12 : i + 16]}"
        f"-{text[i + 16 : i + 20]}-{text[i + 20 : i + 32]}"
        for i in range(0, 32 * n, 32)
    ]


def plain(value: Any) -> Any:
    """As JSON can hold it: documents are stored as such. An array is said by type and shape."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return f"{value.dtype} array of shape {value.shape}"
    return value if isinstance(value, str | int | float | bool | None) else str(value)
