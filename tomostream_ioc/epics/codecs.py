"""Decompression of NTNDArray pixels, in the conventions of areaDetector's NDPluginCodec."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import imagecodecs
import numpy as np

from tomostream_ioc.errors import FrameError
from tomostream_ioc.model.frame import FRAME_DTYPES

#: codec.parameters of a compressed NTNDArray is a pvData ScalarType: the type before compression
PVDATA_DTYPES: dict[int, np.dtype] = {
    code: np.dtype(name)
    for code, name in {
        1: "int8", 2: "int16", 3: "int32", 4: "int64",
        5: "uint8", 6: "uint16", 7: "uint32", 8: "uint64",
        9: "float32", 10: "float64",
    }.items()
}  # fmt: skip

#: what imagecodecs raises on data that are no such stream: its own errors are RuntimeErrors, sizes
#: that do not fit are ValueErrors
_DECODE_ERRORS = (RuntimeError, ValueError, TypeError, MemoryError)

_imagecodecs: Any = imagecodecs  # its stubs know bytes only, the library any buffer

_BITSHUFFLE_BLOCK_BYTES = 8192  # bshuf_default_block_size: a block holds this many bytes ...
_BITSHUFFLE_GROUP = 8  # ... and a multiple of this many elements


def decode_pixels(
    codec: str,
    data: np.ndarray,
    parameters: object,
    dimensions: Sequence[int],
    max_bytes: int = 1 << 30,
) -> np.ndarray:
    """Decompress one frame into a flat pixel array of its own.

    ``data`` is the compressed stream as it came (any one-byte type); ``parameters`` the value of
    the NTNDArray's ``codec.parameters``; ``dimensions`` in areaDetector order, fastest axis first.
    Never allocates more than ``max_bytes``.

    lz4 and zlib are bare streams, bslz4 is bitshuffle's without the 12-byte header of its HDF5
    filter, lz4hdf5 is the HDF5 filter's, blosc is a Blosc 1 frame, jpeg a whole grey JPEG file
    (source: ADCore NDPluginCodec.cpp).

    Raises FrameError: unknown codec, original type missing, sizes beyond ``max_bytes``, or data
    that do not decompress to exactly the frame's size.
    """
    decoder = _DECODERS.get(codec)
    if decoder is None:
        raise FrameError(
            "codec",
            f"Frame is compressed with {codec!r}, which can't be decoded here: "
            f"use one of {', '.join(sorted(_DECODERS))} or none",
        )
    if not isinstance(data, np.ndarray) or data.dtype.itemsize != 1:
        raise FrameError("codec", f"Frame compressed with {codec} does not carry bytes")
    dtype = _original_dtype(codec, parameters)
    n_pixels = math.prod(int(size) for size in dimensions) if dimensions else 0
    if n_pixels <= 0 or any(int(size) <= 0 for size in dimensions):
        raise FrameError("dimensions", f"Frame of {tuple(dimensions)} pixels is empty")
    if n_pixels * dtype.itemsize > max_bytes:
        raise FrameError(
            "dimensions",
            f"Frame of {tuple(dimensions)} {dtype} pixels is larger than {max_bytes} bytes",
        )
    pixels = np.empty(n_pixels, dtype)
    try:
        n_bytes = decoder(np.ascontiguousarray(data).view(np.uint8), pixels, dimensions)
    except _DECODE_ERRORS as error:
        raise FrameError("codec", f"Frame does not decompress as {codec}: {error}") from error
    if n_bytes != pixels.nbytes:
        raise FrameError(
            "codec",
            f"Frame decompresses as {codec} to {n_bytes} bytes, "
            f"but its dimensions need {pixels.nbytes}",
        )
    return pixels


def _original_dtype(codec: str, parameters: object) -> np.dtype:
    if codec == "jpeg":  # 8-bit only, and a signed frame comes out as unsigned (as ADCore has it)
        return np.dtype(np.uint8)
    dtype = PVDATA_DTYPES.get(parameters) if isinstance(parameters, int) else None
    if dtype is None or dtype not in FRAME_DTYPES:
        raise FrameError(
            "codec",
            f"Frame compressed with {codec} does not say its original type "
            f"(codec.parameters is {parameters!r})",
        )
    return dtype


def _lz4(data: np.ndarray, pixels: np.ndarray, _dimensions: Sequence[int]) -> int:
    return len(_imagecodecs.lz4_decode(data, header=False, out=pixels.view(np.uint8)))


def _lz4hdf5(data: np.ndarray, pixels: np.ndarray, _dimensions: Sequence[int]) -> int:
    return len(_imagecodecs.lz4h5_decode(data, out=pixels.view(np.uint8)))


def _zlib(data: np.ndarray, pixels: np.ndarray, _dimensions: Sequence[int]) -> int:
    return len(_imagecodecs.zlib_decode(data, out=pixels.view(np.uint8)))


def _blosc(data: np.ndarray, pixels: np.ndarray, _dimensions: Sequence[int]) -> int:
    # Blosc trusts the sizes in its header: a truncated stream would be read past its end
    n_bytes, _block, n_compressed = np.frombuffer(data[:16].tobytes().ljust(16, b"\0"), "<u4")[1:]
    if n_compressed != len(data):
        raise ValueError(f"the stream says {n_compressed} bytes but has {len(data)}")
    if n_bytes != pixels.nbytes:
        raise ValueError(f"the stream says {n_bytes} bytes of pixels, not {pixels.nbytes}")
    return len(_imagecodecs.blosc_decode(data, numthreads=1, out=pixels.view(np.uint8)))


def _jpeg(data: np.ndarray, pixels: np.ndarray, dimensions: Sequence[int]) -> int:
    if len(dimensions) != 2:
        raise ValueError("only grey images are used")
    # the library fills the rest of a truncated file with grey and says nothing
    if b"\xff\xd9" not in data[-64:].tobytes():
        raise ValueError("the file has no end marker")
    n_cols, n_rows = dimensions
    image = pixels.reshape(n_rows, n_cols)
    return _imagecodecs.jpeg8_decode(data, out=image).nbytes


def _bslz4(data: np.ndarray, pixels: np.ndarray, _dimensions: Sequence[int]) -> int:
    """bshuf_decompress_lz4: [length, big endian][LZ4 block] for each block, then a raw rest."""
    itemsize = pixels.itemsize
    per_block = _BITSHUFFLE_BLOCK_BYTES // itemsize
    # what does not fill a group of 8 elements is neither shuffled nor compressed
    n_shuffled = pixels.size - pixels.size % _BITSHUFFLE_GROUP
    shuffled = np.empty(pixels.nbytes, np.uint8)
    stream = data.data
    position, start = 0, 0
    lengths: list[tuple[int, int]] = []
    while start < n_shuffled:
        length = int.from_bytes(stream[position : position + 4], "big")
        if length <= 0 or position + 4 + length > len(stream):
            raise ValueError("a block is longer than the data")
        lengths.append((position + 4, length))
        position += 4 + length
        start += per_block
    rest = (pixels.size - n_shuffled) * itemsize
    if position + rest != len(stream):
        raise ValueError(f"{len(stream) - position - rest} bytes too many")
    _unpack_blocks(stream, position, lengths, shuffled[: n_shuffled * itemsize])
    shuffled[n_shuffled * itemsize :] = data[position:]
    # the item size is that of the array: the itemsize argument counts for bytes only
    return _imagecodecs.bitshuffle_decode(shuffled.view(pixels.dtype), out=pixels).nbytes


def _unpack_blocks(
    stream: memoryview, end: int, lengths: list[tuple[int, int]], out: np.ndarray
) -> None:
    """LZ4-decompress the blocks of a bslz4 stream, one after the other, into ``out``."""
    block = _BITSHUFFLE_BLOCK_BYTES
    if all(length < block for _, length in lengths):
        # The HDF5 LZ4 filter's stream is the same with a header before it, and one call for all
        # blocks holds the GIL once instead of a thousand times. That filter takes a block that
        # is not smaller than its content as stored, which bitshuffle's never is.
        header = out.size.to_bytes(8, "big") + block.to_bytes(4, "big")
        whole = _imagecodecs.lz4h5_decode(b"".join((header, stream[:end])), out=out)
        if len(whole) != out.size:
            raise ValueError(f"{len(whole)} bytes come out, not {out.size}")
        return
    for index, (position, length) in enumerate(lengths):
        part = out[index * block : (index + 1) * block]
        piece = _imagecodecs.lz4_decode(
            stream[position : position + length], header=False, out=part
        )
        if len(piece) != part.size:
            raise ValueError("a block is shorter than it should be")


_Decoder = Callable[[np.ndarray, np.ndarray, Sequence[int]], int]
_DECODERS: dict[str, _Decoder] = {
    "lz4": _lz4,
    "lz4hdf5": _lz4hdf5,
    "bslz4": _bslz4,
    "blosc": _blosc,
    "zlib": _zlib,
    "jpeg": _jpeg,
}
