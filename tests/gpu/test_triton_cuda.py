"""The GPU backend where there is a GPU: real sizes, and what only streams and graphs can spoil."""

import importlib.util
from typing import Any

import numpy as np
import pytest
import torch

from tomostream_ioc.model.params import ReconParams
from tomostream_ioc.recon.devices import pinned_empty
from tomostream_ioc.recon.engine import OrthoEngine
from tomostream_ioc.recon.geometry import ScanGeometry, Views, y_slice_line, z_slice_rows
from tomostream_ioc.recon.gpu import probe

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA GPU here"),
    pytest.mark.skipif(not importlib.util.find_spec("triton"), reason="triton is not installed"),
    pytest.mark.timeout(300),
]


def make_engine(n_angles, n_rows, n_cols, dtype="uint16", **options) -> Any:
    geometry = ScanGeometry(n_angles=n_angles, n_rows=n_rows, n_cols=n_cols)
    options.setdefault("library", "triton")
    engine = OrthoEngine(geometry, dtype, "cuda", **options)
    engine.set_dark(np.full((n_rows, n_cols), 100.0))
    engine.set_flat(np.full((n_rows, n_cols), 60000.0))
    return engine


def frames_of(k, n_rows, n_cols, seed=0, dtype="uint16"):
    """Raw frames of something smooth with noise, (k, n_rows, n_cols)."""
    rng = np.random.default_rng(seed)
    u = (np.arange(n_cols) - n_cols / 2) / (n_cols / 2)
    profile = np.exp(-2.0 * np.sqrt(np.clip(0.8 - u**2, 0, None)))  # (n_cols,)
    level = 100 + 59900 * profile * rng.uniform(0.8, 1.0, (k, n_rows, 1))
    return (level + rng.normal(0, 100, (k, n_rows, n_cols))).clip(0, 65535).astype(dtype)


def params_of(engine, **changes):
    n, n_rows = engine.geometry.n_cols, engine.geometry.n_rows
    values = {"center": n / 2 + 0.3, "ortho_x": n // 3, "ortho_y": n // 2, "ortho_z": n_rows // 2}
    return ReconParams(**values | changes)


def worst(a, b):
    return max(
        np.abs(p - q).max() / np.abs(q).max() for p, q in ((a.z, b.z), (a.y, b.y), (a.x, b.x))
    )


def angles(k):
    return np.arange(k) * 180.0 / k


@pytest.mark.parametrize(("n_rows", "n"), [(2048, 2448), (2047, 2449), (1, 2448), (16, 500)])
def test_kernels_equal_torch_in_float64(n_rows, n):
    from tomostream_ioc.recon.backproject.torch_ import TorchBackProjector
    from tomostream_ioc.recon.backproject.triton_ import TritonBackProjector

    geometry = ScanGeometry(n_angles=24, n_rows=n_rows, n_cols=n)
    pitch = -(-n_rows // 16) * 16
    ring = torch.randn(20, n, pitch, device="cuda").to(torch.float16)[..., :n_rows]
    triton = TritonBackProjector(geometry, ring)
    exact = TorchBackProjector(geometry, ring.contiguous(), torch.float64)
    rng = np.random.default_rng(1)
    theta, weights = rng.uniform(-400, 400, 40), rng.uniform(-1, 2, 40)
    views = Views.at(rng.integers(0, 20, 40), theta, weights)
    center = 0.49 * n
    line, rows = y_slice_line(geometry, n // 5, 7.0), z_slice_rows(geometry, n_rows // 2, 3.0)
    for shape, add in (
        ((n, n), lambda one, sums: one.add_z(sums, views, n_rows // 2, center)),
        ((n, n_rows), lambda one, sums: one.add_vertical(sums, views, line, center)),
        ((n, n), lambda one, sums: one.add_tilted_z(sums, views, rows, center)),
    ):
        got, expected = triton.zeros(*shape), exact.zeros(*shape)
        add(triton, got)
        add(exact, expected)
        assert torch.isfinite(got).all()
        assert (got - expected).abs().max() < 2e-5 * expected.abs().max()


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int32", "uint64", "float32"])
@pytest.mark.parametrize(("n_rows", "n"), [(2048, 2448), (33, 501)])
def test_filtered_ring_equals_torch_in_float64(dtype, n_rows, n):
    raw = frames_of(6, n_rows, n)
    raw = (raw >> 8).astype(dtype) if dtype == "uint8" else raw.astype(dtype)
    if dtype == "float32":
        raw[:, 5, 100:103], raw[5, 7, 0] = np.nan, np.inf
    rings = []
    for options in ({"library": "triton"}, {"library": "torch", "compute": "float64"}):
        engine = make_engine(6, n_rows, n, dtype, **options)
        flat = np.full((n_rows, n), 250.0 if dtype == "uint8" else 60000.0)
        flat[9, 50:53], flat[11, 0], flat[12] = np.nan, 0.0, -np.inf
        engine.set_dark(np.full((n_rows, n), 1.0))
        engine.set_flat(flat)
        engine.push(raw, angles(6), np.arange(6))
        for dezinger in (0, 3):
            engine.reconstruct(params_of(engine, filter_type="Shepp-logan", dezinger=dezinger))
            places = torch.from_numpy(engine._ring.places).cuda()
            rings.append(engine._backend.projector._ring[places].double())
        rings.append(engine.bad_pixels)
        engine.release()
    assert rings[2] == rings[5]
    for got, expected in ((rings[0], rings[3]), (rings[1], rings[4])):
        assert torch.isfinite(got).all()
        assert (got - expected).abs().max() < 1e-3 * expected.abs().max()
        assert (got - expected).square().mean().sqrt() < 5e-5 * expected.abs().max()


def test_whole_engine_equals_torch_in_float64_at_full_size():
    k, n_rows, n = 48, 2048, 2448
    raw = frames_of(k, n_rows, n)
    shown = []
    for options in ({}, {"library": "torch", "compute": "float64"}):
        engine = make_engine(k, n_rows, n, **options)
        engine.push(raw[:20], angles(k)[:20], np.arange(20))
        engine.reconstruct(params_of(engine))
        engine.push(raw[20:], angles(k)[20:], np.arange(20, k))
        shown.append(engine.reconstruct(params_of(engine)))
        engine.release()
    assert worst(*shown) < 2e-4  # float16, and few angles


@pytest.mark.parametrize("on_host", [False, True])
@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_incremental_equals_full_after_many_updates(on_host, dtype):
    k, n_rows, n = 96, 130, 500
    engine = make_engine(k, n_rows, n, dtype, policy="raw on host" if on_host else "auto")
    assert ("pinned memory" in engine.where) == on_host
    params = params_of(engine)
    raw = frames_of(k, n_rows, n, 0, dtype)
    engine.push(raw, angles(k), np.arange(k))
    engine.reconstruct(params)
    buffer = pinned_empty((16, n_rows, n), dtype)
    for turn in range(1, 7):
        raw = frames_of(k, n_rows, n, turn, dtype)
        for first in range(0, k, 16):
            slots = np.arange(first, first + 16)
            buffer[:] = raw[slots]
            engine.push(buffer, angles(k)[slots] + 180.0 * turn, slots)
            buffer[:] = 7  # push has returned: the caller may do what it likes with it
        engine.push(raw[3:8], angles(k)[3:8] + 180.0 * turn, np.arange(3, 8))
    shown = engine.reconstruct(params)
    fresh = make_engine(k, n_rows, n, dtype)
    fresh.push(raw, angles(k) + 180.0 * 6, np.arange(k))
    assert worst(shown, fresh.reconstruct(params)) < 1e-5


def test_what_comes_often_is_recorded_and_stays_right(caplog):
    k, n_rows, n = 32, 64, 300
    engine = make_engine(k, n_rows, n)
    raw = frames_of(k, n_rows, n)
    engine.push(raw, angles(k), np.arange(k))
    engine.reconstruct(params_of(engine))
    replay = engine._chain._replay
    assert replay.n_recorded == 2, caplog.text  # the usual batch, with and without bad pixels
    for _ in range(4):
        engine.push(raw[:5], angles(k)[:5], np.arange(5))
    assert replay.n_recorded == 3, caplog.text
    for first in (0, 16):
        slots = np.arange(first, first + 16)
        engine.push(raw[slots], angles(k)[slots], slots)
    # new fields and another filter go into the recorded work, too
    fresh = make_engine(k, n_rows, n)
    for one in (engine, fresh):
        one.set_flat(np.full((n_rows, n), 62000.0))
        one.push(raw[:16], angles(k)[:16], np.arange(16))
        one.push(raw[16:], angles(k)[16:], np.arange(16, 32))
    params = params_of(engine, filter_type="Ramp")
    engine.reconstruct(params)
    engine.push(raw[:16], angles(k)[:16], np.arange(16))
    assert worst(engine.reconstruct(params), fresh.reconstruct(params)) < 1e-5


class Stop(Exception):  # noqa: N818
    pass


def test_a_cancelled_rebuild_or_push_is_done_again():
    k, n_rows, n = 64, 100, 400
    raw, other = frames_of(k, n_rows, n), frames_of(k, n_rows, n, 1)
    fresh = make_engine(k, n_rows, n)
    fresh.push(other, angles(k), np.arange(k))
    params = params_of(fresh)
    expected = fresh.reconstruct(params)
    beats = [0]

    def heartbeat():
        beats[0] -= 1
        if beats[0] == 0:
            raise Stop

    for stop_at in range(1, 9):
        engine = make_engine(k, n_rows, n, heartbeat=heartbeat)
        engine.push(raw, angles(k), np.arange(k))
        engine.reconstruct(params)
        buffer = pinned_empty(other.shape, "uint16")
        buffer[:] = other
        beats[0] = stop_at
        try:
            engine.push(buffer, angles(k), np.arange(k))
            engine.reconstruct(params_of(engine, filter_type="Ramp"))
        except Stop:
            buffer[:] = 0
            engine.push(other, angles(k), np.arange(k))
        beats[0] = 0
        assert worst(engine.reconstruct(params), expected) < 1e-5
        engine.release()


def test_release_gives_the_memory_back():
    make_engine(4, 16, 64).release()  # CUDA's own, and the compiler's
    torch.cuda.synchronize()
    before, free = torch.cuda.memory_allocated(), torch.cuda.mem_get_info()[0]
    engine = make_engine(64, 512, 1024)
    engine.push(frames_of(64, 512, 1024), angles(64), np.arange(64))
    engine.reconstruct(params_of(engine))
    assert torch.cuda.memory_allocated() > before + 2 * 64 * 512 * 1024 * 2
    engine.release()
    assert torch.cuda.memory_allocated() <= before + (1 << 20)
    assert torch.cuda.mem_get_info()[0] > free - (64 << 20)


def test_auto_takes_triton_and_says_when_it_cannot(monkeypatch):
    engine = make_engine(4, 16, 64, library="auto")
    assert "by triton" in engine.where
    monkeypatch.setattr(probe, "why_not", lambda _: "no C compiler")
    engine = make_engine(4, 16, 64, library="auto")
    assert "not by triton: no C compiler" in engine.where
