"""Frames compressed the areaDetector way come back bit for bit; anything else is refused."""

from __future__ import annotations

from typing import Any

import h5py
import hdf5plugin
import imagecodecs
import numpy as np
import pytest

from tomostream_ioc.epics.codecs import PVDATA_DTYPES, decode_pixels
from tomostream_ioc.errors import FrameError

CODES = {dtype: code for code, dtype in PVDATA_DTYPES.items()}


def image(dtype: str, shape: tuple[int, int] = (37, 53), *, noise: bool = False) -> np.ndarray:
    generator = np.random.default_rng(1)
    if noise:
        raw = generator.bytes(int(np.prod(shape)) * np.dtype(dtype).itemsize)
        return np.frombuffer(raw, dtype).reshape(shape)
    return generator.poisson(40, shape).astype(dtype)


def hdf5_chunk(pixels: np.ndarray, **compression: Any) -> bytes:
    """What the C library behind an HDF5 filter makes of an image: an encoder not of this product"""
    with h5py.File("chunk.h5", "w", driver="core", backing_store=False) as file:
        dataset = file.create_dataset("d", data=pixels, chunks=pixels.shape, **compression)
        return bytes(dataset.id.read_direct_chunk((0, 0))[1])


def bslz4(pixels: np.ndarray) -> bytes:
    # the HDF5 filter puts a header of 12 bytes before what bshuf_compress_lz4 makes
    return hdf5_chunk(pixels, **hdf5plugin.Bitshuffle(cname="lz4"))[12:]


ENCODERS = {
    "lz4": lambda p: imagecodecs.lz4_encode(p.tobytes(), header=False),
    "lz4hdf5": lambda p: hdf5_chunk(p, **hdf5plugin.LZ4(nbytes=2048)),
    "bslz4": bslz4,
    "blosc": lambda p: imagecodecs.blosc_encode(p.tobytes(), typesize=p.itemsize),
    "zlib": lambda p: imagecodecs.zlib_encode(p.tobytes()),
}


def decode(codec: str, data: bytes, pixels: np.ndarray, **options: int) -> np.ndarray:
    return decode_pixels(
        codec,
        np.frombuffer(data, np.uint8),
        CODES[pixels.dtype],
        pixels.shape[::-1],
        **options,
    )


@pytest.mark.parametrize("codec", ENCODERS)
@pytest.mark.parametrize("dtype", ["int8", "uint8", "uint16", "int32", "float32", "float64"])
def test_lossless_codecs_give_the_pixels_back(codec: str, dtype: str):
    pixels = image(dtype)
    got = decode(codec, ENCODERS[codec](pixels), pixels)
    assert got.dtype == pixels.dtype
    np.testing.assert_array_equal(got.reshape(pixels.shape), pixels)


@pytest.mark.parametrize("shape", [(1, 3), (8, 8), (64, 64), (129, 257), (512, 512)])
@pytest.mark.parametrize("noise", [False, True])
def test_bitshuffle_at_every_block_border(shape: tuple[int, int], noise: bool):
    pixels = image("uint16", shape, noise=noise)
    got = decode("bslz4", bslz4(pixels), pixels)
    assert got.tobytes() == pixels.tobytes()


def test_jpeg_is_close():
    rows, cols = np.mgrid[0:40, 0:64]
    pixels = (rows + cols).astype(np.uint8)
    got = decode("jpeg", bytes(imagecodecs.jpeg8_encode(pixels, level=95)), pixels)
    assert np.abs(got.reshape(pixels.shape).astype(int) - pixels).max() <= 4


def test_unknown_codec_is_named():
    pixels = image("uint16")
    with pytest.raises(FrameError, match="'zfp'"):
        decode("zfp", b"abc", pixels)


@pytest.mark.parametrize("parameters", [None, 0, 11, "uint16"])
def test_original_type_must_be_known(parameters: object):
    with pytest.raises(FrameError, match="original type"):
        decode_pixels("lz4", np.zeros(4, np.uint8), parameters, (2, 2))


@pytest.mark.parametrize("codec", [*ENCODERS, "jpeg"])
def test_damaged_data_are_refused(codec: str):
    pixels = image("uint8", (64, 64))
    encode = ENCODERS.get(codec, lambda p: imagecodecs.jpeg8_encode(p))
    whole = bytes(encode(pixels))
    for damaged in (b"", whole[: len(whole) // 2], b"\x00" * 40, bytes(range(256)) * 8):
        with pytest.raises(FrameError):
            decode(codec, damaged, pixels)


@pytest.mark.parametrize("codec", [*ENCODERS, "jpeg"])
def test_size_must_be_that_of_the_dimensions(codec: str):
    pixels = image("uint8", (64, 64))
    encode = ENCODERS.get(codec, lambda p: imagecodecs.jpeg8_encode(p))
    data = np.frombuffer(encode(pixels), np.uint8)
    for dimensions in ((64, 63), (64, 65), (4096, 4096), (0, 64), (-64, -64), ()):
        with pytest.raises(FrameError):
            decode_pixels(codec, data, CODES[pixels.dtype], dimensions)


def test_memory_is_bounded():
    with pytest.raises(FrameError, match="larger than"):
        decode_pixels("lz4", np.zeros(40, np.uint8), 6, (2**31 - 1, 2**31 - 1))
    pixels = image("uint16", (64, 64))
    with pytest.raises(FrameError, match="larger than"):
        decode("lz4", ENCODERS["lz4"](pixels), pixels, max_bytes=1000)
