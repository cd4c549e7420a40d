"""Documents as bytes and back: MessagePack with arrays, which can't run code as pickle can."""

from __future__ import annotations

import math
import pickle
from collections.abc import Mapping
from typing import Any, cast

import msgpack
import numpy as np

from tomostream_ioc.errors import TomoStreamError

#: booleans, whole numbers, floats, complex numbers, text and times; never objects or structures
_KINDS = frozenset("biufcSUmM")
#: first bytes of a pickle of protocol 2 or later; MessagePack reads an empty map and a rest in them
_PICKLES = tuple(bytes((0x80, protocol)) for protocol in range(2, 6))


class WireError(TomoStreamError):
    """Bytes that are no document, or a document that can't be made bytes."""


def dumps(doc: Mapping[str, Any]) -> bytes:
    """A document in MessagePack, its arrays as the package msgpack_numpy writes them.

    May be given as ``serializer`` to bluesky's Publisher.

    Raises WireError: the document holds what MessagePack can't, such as an array of objects.
    """
    try:
        return cast(bytes, msgpack.packb(doc, default=_encode, use_bin_type=True))
    except (TypeError, ValueError, OverflowError, WireError) as error:
        raise WireError(
            f"The document can't be sent: {error}. Documents hold numbers, text, lists, mappings"
            " and arrays of numbers or text."
        ) from error


def loads(data: Any) -> dict[str, Any]:
    """A document out of bytes or a memoryview. Its arrays are read-only.

    May be given as ``deserializer`` to bluesky's RemoteDispatcher.

    Raises WireError: no document, a pickle, or an array of objects (which would be a pickle too).
    """
    if _is_pickle(data):
        raise WireError(
            "it is pickled, and a pickle can run any code: let the publisher send MessagePack, or"
            " allow pickles if all who can publish are trusted"
        )
    try:
        doc = msgpack.unpackb(data, object_hook=_decode, raw=False)
    except WireError:
        raise
    # whatever bytes may come, and msgpack says many things of them
    except Exception as error:
        raise WireError(f"it is no MessagePack: {type(error).__name__} {error}") from error
    return _checked(doc)


def loads_with_pickle(data: Any) -> dict[str, Any]:
    """As `loads`, but takes what an unchanged bluesky Publisher sends too: RUNS CODE IN IT.

    Raises WireError: no document.
    """
    if not _is_pickle(data):
        return loads(data)
    try:
        doc = pickle.loads(data)
    except Exception as error:
        raise WireError(f"it can't be unpickled: {type(error).__name__} {error}") from error
    return _checked(doc)


def _is_pickle(data: Any) -> bool:
    return bytes(data[:2]) in _PICKLES


def _checked(doc: Any) -> dict[str, Any]:
    if not isinstance(doc, dict) or not all(isinstance(key, str) for key in doc):
        raise WireError(f"it is a {type(doc).__name__}, where a document with names is needed")
    return doc


def _encode(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        _check_kind(value.dtype)
        data = np.ascontiguousarray(value)
        return {
            b"nd": True,
            b"type": value.dtype.str,
            b"kind": b"",
            b"shape": value.shape,
            # a view: the pixels are copied once, into the message
            b"data": data.data.cast("B") if value.dtype.kind in "biuf" and data.size
            else data.tobytes(),
        }  # fmt: skip
    if isinstance(value, np.generic):
        _check_kind(value.dtype)
        return {b"nd": False, b"type": value.dtype.str, b"data": value.tobytes()}
    if isinstance(value, complex):
        return {b"complex": True, b"data": repr(value)}
    raise TypeError(f"a {type(value).__name__}")


def _decode(mapping: dict[Any, Any]) -> Any:
    if b"nd" in mapping:
        return _array(mapping)
    if b"complex" in mapping:
        return complex(mapping[b"data"])
    return mapping


def _array(mapping: Mapping[bytes, Any]) -> Any:
    if mapping.get(b"kind"):
        raise WireError("it holds an array of objects or structures")
    dtype = np.dtype(str(mapping[b"type"]))
    _check_kind(dtype)
    array = np.frombuffer(mapping[b"data"], dtype) if mapping[b"data"] else np.empty(0, dtype)
    if mapping[b"nd"] is not True:
        return array[0]
    shape = tuple(int(n) for n in mapping[b"shape"])
    if any(n < 0 for n in shape) or math.prod(shape) != array.size:
        raise WireError(f"it holds an array of {array.size} elements for shape {shape}")
    return array.reshape(shape)


def _check_kind(dtype: np.dtype) -> None:
    if dtype.kind not in _KINDS or dtype.itemsize == 0:
        raise WireError(f"arrays of type {dtype} are not taken")
