"""A detector and tomoScan's PVA channels, served by pvapy as upstream does, led by stdin lines.

    python tests/pva/pvapy_sender.py [--prefix T:] [--rows 32] [--cols 48] [--dtype uint16]
                                     [--frames scan.npy|scan.npz]

serves <prefix>Image (NTNDArray), <prefix>StreamDarkFields, <prefix>StreamFlatFields and
<prefix>StreamTheta. Each line is answered by `ok <line>` or `error <why>`; options are key=value:

    frame <id> [rows= cols= dtype= codec= dims=4x4 parameters= damage=1]   one frame
    burst <n> [start=1 hz=0 ...]     n frames, ids from start; hz=0 as fast as it goes
    dark | flat [value= rows= cols= sizex= sizey= | file=field.npy]    written field by field,
                                     as tomoScan does
    theta <n> [step=1.0 sizex=] | theta values=0,1,nan | theta file=theta.npy
    stop
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

import numpy as np

MEMBERS = {
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
#: pvData's ScalarType, which codec.parameters of a compressed NTNDArray holds
PVDATA_TYPES = {
    "int8": 1,
    "int16": 2,
    "int32": 3,
    "int64": 4,
    "uint8": 5,
    "uint16": 6,
    "uint32": 7,
    "uint64": 8,
    "float32": 9,
    "float64": 10,
}


def synthetic(unique_id: int, rows: int, cols: int, dtype: str) -> np.ndarray:
    """The frame with this id, the same in sender and test; smooth, so that JPEG keeps it."""
    row, col = np.mgrid[0:rows, 0:cols]
    return ((row + col + unique_id) % 120).astype(dtype)


def compressed(image: np.ndarray, codec: str) -> np.ndarray:
    """As areaDetector's NDPluginCodec makes it."""
    import h5py
    import hdf5plugin
    import imagecodecs

    raw = image.tobytes()
    if codec == "lz4":
        data = imagecodecs.lz4_encode(raw, header=False)
    elif codec == "blosc":
        data = imagecodecs.blosc_encode(raw, typesize=image.itemsize)
    elif codec == "jpeg":
        data = imagecodecs.jpeg8_encode(image, level=95)
    elif codec == "bslz4":  # bitshuffle's HDF5 filter puts 12 bytes before it
        with h5py.File("chunk.h5", "w", driver="core", backing_store=False) as file:
            options = dict(hdf5plugin.Bitshuffle(cname="lz4"))
            dataset = file.create_dataset("d", data=image, chunks=image.shape, **options)
            data = dataset.id.read_direct_chunk((0, 0))[1][12:]
    else:
        data = raw  # a codec that does not exist
    return np.frombuffer(data, np.uint8)


class Sender:
    """The four channels; one PvaServer for all, as two would serve each channel twice."""

    def __init__(self, arguments: argparse.Namespace):
        import pvaccess

        self._pva: Any = pvaccess  # its classes are made in C and have no stubs
        pva = self._pva
        self._image = arguments.prefix + "Image"
        self._defaults = {
            "rows": arguments.rows,
            "cols": arguments.cols,
            "dtype": arguments.dtype,
        }
        self._frames = _load(arguments.frames)
        self._made: dict[tuple, list[Any]] = {}  # of the last burst, for the next one like it
        sizes = {"sizex": pva.INT, "sizey": pva.INT}
        self._fields: dict[str, Any] = {
            "dark": pva.PvObject({"value": [pva.FLOAT], **sizes}),
            "flat": pva.PvObject({"value": [pva.FLOAT], **sizes}),
            "theta": pva.PvObject({"value": [pva.FLOAT], "sizex": pva.INT}),
        }
        self._server = pva.PvaServer()
        self._server.addRecord(self._image, pva.NtNdArray())
        for name, channel in (
            ("dark", "StreamDarkFields"),
            ("flat", "StreamFlatFields"),
            ("theta", "StreamTheta"),
        ):
            self._server.addRecord(arguments.prefix + channel, self._fields[name])

    def do(self, line: str) -> None:
        command, *words = line.split()
        options = {name: text for name, _, text in (w.partition("=") for w in words) if text}
        numbers = [int(word) for word in words if "=" not in word]
        if command == "frame":
            self._server.update(self._image, self._frame(numbers[0], options))
        elif command == "burst":
            self._burst(numbers[0], options)
        elif command in ("dark", "flat"):
            self._field(self._fields[command], options)
        elif command == "theta":
            self._theta(numbers, options)
        else:
            raise ValueError(f"unknown command {command!r}")

    def _burst(self, count: int, options: dict[str, str]) -> None:
        start, hz = int(options.get("start", 1)), float(options.get("hz", 0))
        # made beforehand, and few different synthetic ones: what counts is how fast they go out
        n_made = min(count, 16) if self._frames is None else count
        kind = (n_made, *sorted((k, v) for k, v in options.items() if k not in ("start", "hz")))
        if self._frames is not None or kind not in self._made:
            self._made = {kind: [self._frame(start + k, options) for k in range(n_made)]}
        made = self._made[kind]
        begin = time.monotonic()
        for k in range(count):
            frame = made[k % len(made)]
            frame["uniqueId"] = start + k
            if hz:
                time.sleep(max(begin + k / hz - time.monotonic(), 0.0))
            frame["dataTimeStamp"] = self._pva.PvTimeStamp(time.time())
            self._server.update(self._image, frame)

    def _frame(self, unique_id: int, options: dict[str, str]) -> Any:
        pva = self._pva
        chosen = self._defaults | options
        rows, cols, dtype = int(chosen["rows"]), int(chosen["cols"]), str(chosen["dtype"])
        if self._frames is None or "rows" in options:
            image = synthetic(unique_id, rows, cols, dtype)
        else:
            image = np.ascontiguousarray(self._frames[(unique_id - 1) % len(self._frames)])
        rows, cols = image.shape
        dims = [int(size) for size in options.get("dims", f"{cols}x{rows}").split("x")]
        codec = options.get("codec", "")
        data = compressed(image, codec) if codec else image.reshape(-1)
        if options.get("damage"):
            data = data[: len(data) // 2] if codec else data[:-1]
        now = pva.PvTimeStamp(time.time())
        parameters = int(options.get("parameters", PVDATA_TYPES[image.dtype.name]))
        frame = pva.NtNdArray()
        frame["uniqueId"] = unique_id
        frame["codec"] = pva.PvCodec(codec, pva.PvInt(parameters))
        frame["dimension"] = [pva.PvDimension(size, 0, size, 1, False) for size in dims]
        frame["compressedSize"] = data.nbytes
        frame["uncompressedSize"] = image.nbytes
        frame["timeStamp"] = now
        frame["dataTimeStamp"] = now
        frame["attribute"] = [pva.NtAttribute("ColorMode", pva.PvInt(0))]
        frame["value"] = {MEMBERS[data.dtype.name]: data}
        return frame

    def _field(self, channel: Any, options: dict[str, str]) -> None:
        chosen = self._defaults | options
        rows, cols = int(chosen["rows"]), int(chosen["cols"])
        if "file" in options:
            image = np.load(options["file"]).astype(np.float32)
            (rows, cols), field = image.shape, image.reshape(-1)
        else:
            field = np.arange(rows * cols, dtype=np.float32) + float(options.get("value", 0))
        # three assignments are three updates: this is what tomoScan does
        channel["value"] = field
        channel["sizex"] = int(options.get("sizex", cols))
        channel["sizey"] = int(options.get("sizey", rows))

    def _theta(self, numbers: list[int], options: dict[str, str]) -> None:
        if "file" in options:
            theta = np.load(options["file"]).astype(np.float32)
        elif "values" in options:
            theta = np.array(options["values"].split(","), np.float32)
        else:
            theta = np.arange(numbers[0], dtype=np.float32) * float(options.get("step", 1.0))
        self._fields["theta"]["value"] = theta
        self._fields["theta"]["sizex"] = int(options.get("sizex", len(theta)))


def _load(path: str) -> np.ndarray | None:
    if not path:
        return None
    loaded = np.load(path, mmap_mode="r")
    return loaded if isinstance(loaded, np.ndarray) else loaded[loaded.files[0]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--prefix", default="T:")
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--cols", type=int, default=48)
    parser.add_argument("--dtype", default="uint16", choices=list(MEMBERS))
    parser.add_argument("--frames", default="", help="(n, rows, cols) in an .npy or .npz file")
    sender = Sender(parser.parse_args())
    print("ready", flush=True)
    for line in sys.stdin:
        line = line.strip()
        if line == "stop":
            break
        if not line:
            continue
        try:
            sender.do(line)
        except Exception as error:  # noqa: BLE001 - whatever it is, the test hears of it
            print(f"error {type(error).__name__}: {error}", flush=True)
        else:
            print(f"ok {line}", flush=True)


if __name__ == "__main__":
    main()
