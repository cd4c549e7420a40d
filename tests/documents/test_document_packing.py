"""Documents as bytes: arrays come back, and no bytes run code or raise what is not a WireError."""

from __future__ import annotations

import contextlib
import os
import pickle

import msgpack
import msgpack_numpy
import numpy as np
import pytest

from tomostream_ioc.documents.transport import WireError, dumps, loads, loads_with_pickle


class RunsCode:
    """What an attacker pickles: touches a file where it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return (os.mkdir, (self.path,))


VALUES = {
    "u2": np.arange(24, dtype=np.uint16).reshape(2, 3, 4),
    "not contiguous": np.arange(24.0).reshape(4, 6)[:, ::2],
    "big endian": np.arange(5, dtype=">i4"),
    "text": np.array(["a", "longer"]),
    "bool": np.array([True, False]),
    "empty": np.empty((0, 7), np.float32),
    "no axis": np.array(3.5),
    "complex": np.array([1 + 2j]),
    "time": np.array(["2026-11-21"], "M8[D]"),
}


@pytest.mark.parametrize("name", VALUES)
def test_arrays_come_back(name):
    value = VALUES[name]
    back = loads(dumps({"x": value}))["x"]
    assert back.dtype == value.dtype
    assert back.shape == value.shape
    np.testing.assert_array_equal(back, value)
    # the package whose format it is reads it as well, and is read
    theirs = msgpack.unpackb(dumps({"x": value}), object_hook=msgpack_numpy.decode)["x"]
    np.testing.assert_array_equal(theirs, value)
    if value.dtype.kind != "M":  # that it can't write
        packed = msgpack.packb({"x": value}, default=msgpack_numpy.encode)
        np.testing.assert_array_equal(loads(packed)["x"], value)


def test_scalars_and_lists_come_back():
    doc = {
        "n": np.int64(5),
        "f": 0.1,
        "c": 1j,
        "l": [1, [2.5, "x"]],
        "none": None,
        "d": {"k": True},
    }
    back = loads(dumps(doc))
    assert back == doc
    assert back["n"].dtype == np.int64


@pytest.mark.parametrize(
    "value",
    [np.array([{}, None]), object(), {1, 2}, 1 << 70],
    ids=["objects", "object", "set", "large"],
)
def test_what_is_no_document_is_not_sent(value):
    with pytest.raises(WireError, match="can't be sent"):
        dumps({"x": value})


def test_no_way_of_packing_runs_code(tmp_path):
    trap = tmp_path / "ran"
    evil = pickle.dumps({"uid": RunsCode(trap)})
    packed = {b"nd": True, b"type": "|O", b"kind": b"O", b"shape": [1], b"data": evil}
    structure = packed | {b"type": [["x", "|O"]], b"kind": b"V"}
    plain = packed | {b"kind": b""}
    attacks = [evil, *(msgpack.packb({"x": attack}) for attack in (packed, structure, plain))]
    for protocol in range(6):
        attacks.append(pickle.dumps({"uid": RunsCode(trap)}, protocol))
    for attack in attacks:
        with pytest.raises(WireError):
            loads(attack)
    assert not trap.exists()
    # the trap is one: where pickles are allowed it snaps
    with pytest.raises(WireError):
        loads(evil)
    loads_with_pickle(evil)
    assert trap.exists()


@pytest.mark.parametrize(
    "shape", [[-1], [3, -2], [7], [1 << 62, 4], ["a"], 5, None], ids=str
)  # fmt: skip
def test_a_wrong_shape_is_refused(shape):
    array = {b"nd": True, b"type": "<u2", b"kind": b"", b"shape": shape, b"data": bytes(12)}
    with pytest.raises(WireError):
        loads(msgpack.packb({"x": array}))


def test_random_bytes_are_refused_or_a_document():
    rng = np.random.default_rng(1)
    good = dumps({"uid": "x", "image": np.arange(100)})
    for _ in range(3000):
        data = bytearray(good if rng.random() < 0.5 else rng.bytes(int(rng.integers(0, 60))))
        for _ in range(rng.integers(0, 4) if data else 0):
            data[rng.integers(len(data))] = rng.integers(256)
        with contextlib.suppress(WireError):
            assert isinstance(loads(bytes(data)), dict)
    with pytest.raises(WireError):
        loads(b"\x91" * 100_000)
