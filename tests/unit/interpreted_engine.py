"""The engine with Triton kernels, interpreted on the CPU: see test_recon_triton_engine.py."""
# ruff: noqa: E402

import os
from typing import Any

assert os.environ.get("TRITON_INTERPRET") == "1", "run by test_recon_triton_engine.py"

from dataclasses import replace

import numpy as np
import pytest
import torch
from test_recon_phantom import Phantom, engine_for, half_turn, middle, worst

from tomostream_ioc.recon.backproject.triton_ import Tiles
from tomostream_ioc.recon.chain.triton_ import ChainSizes

#: few tiles, as each takes the interpreter long; interpreted_kernels.py has the many
TILES = Tiles(z=(16, 32, 1), vertical=(16, 16, 1), tilted=(16, 32, 1), line=(64, 1))
SIZES = ChainSizes(frames=2, row=(32, 1), store=(4, 32, 1), product=(8, 128, 1))


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


PHANTOM = Phantom(22, 5)
N_ANGLES = 12
PARAMS = middle(PHANTOM, center=10.2)


def small_engine(**options):
    engine: Any = engine_for(PHANTOM, N_ANGLES, **options)
    if options.get("library") == "triton":
        engine._chain._sizes = SIZES
        engine._backend.projector._tiles = TILES
    return engine


def test_incremental_equals_full():
    theta, slots = half_turn(N_ANGLES), np.arange(N_ANGLES)
    raw, other = PHANTOM.raw(theta, 10.2), Phantom(22, 5, scale=0.6).raw(theta + 180.0, 10.2)
    engine, fresh = small_engine(library="triton"), small_engine(library="triton")
    engine.push(raw, theta, slots)
    engine.reconstruct(PARAMS)
    engine.push(other[:4], theta[:4] + 180.0, slots[:4])
    raw[:4], theta[:4] = other[:4], theta[:4] + 180.0
    fresh.push(raw, theta, slots)
    assert worst(engine.reconstruct(PARAMS), fresh.reconstruct(PARAMS)) < 1e-6


def test_engine_follows_the_stream_as_torch_does():
    theta = 180.0 * (np.arange(N_ANGLES) / N_ANGLES) ** 1.3  # uneven: every weight differs
    slots = np.arange(N_ANGLES)
    raw, other = PHANTOM.raw(theta, 10.2), Phantom(22, 5, scale=0.6).raw(theta + 180.0, 10.2)
    engine = small_engine(library="triton")
    same = small_engine(library="torch")
    exact = small_engine(library="torch", compute="float64")
    assert engine.where == "cpu by triton, raw frames in memory"
    for one in (engine, same, exact):
        one.push(raw[:8], theta[:8], slots[:8])
        one.reconstruct(PARAMS)
        one.push(raw[8:], theta[8:], slots[8:])
        one.push(other[:4], theta[:4] + 180.0, slots[:4])
    shown = engine.reconstruct(PARAMS)
    assert worst(shown, same.reconstruct(PARAMS)) < 5e-5
    assert worst(shown, exact.reconstruct(PARAMS)) < 2e-4  # float16, and few angles
    tilted = middle(
        PHANTOM, center=10.7, ortho_x=7, rot_x_deg=8.0, rot_y_deg=-5.0, rot_z_deg=4.0,
        filter_type="Ramp",
    )  # fmt: skip
    shown = engine.reconstruct(tilted)
    assert worst(shown, same.reconstruct(tilted)) < 5e-5
    assert worst(shown, exact.reconstruct(tilted)) < 3e-4
    # what has no kernel is done by torch, on the same ring
    for changes in (
        {"energy_kev": 20.0, "distance_mm": 20.0, "alpha": 1e-2, "pixel_size_um": 1.0},
        {"ring_removal": "fw"},
        {"filter_type": "Ramp"},
    ):
        params = replace(PARAMS, **changes)
        assert worst(engine.reconstruct(params), same.reconstruct(params)) < 5e-5
    engine.release()


def test_the_chunked_policy_shows_the_same():
    theta, slots = half_turn(N_ANGLES), np.arange(N_ANGLES)
    engine = small_engine(library="triton", policy="chunked")
    whole = small_engine(library="triton")
    for one in (engine, whole):
        one.push(PHANTOM.raw(theta, 10.2), theta, slots)
        one.reconstruct(PARAMS)
        one.push(PHANTOM.raw(theta[:5], 10.9), theta[:5], slots[:5])
    assert worst(engine.reconstruct(PARAMS), whole.reconstruct(PARAMS)) < 1e-5


def test_push_waits_for_its_frames_also_when_it_fails(monkeypatch):
    theta, slots = half_turn(N_ANGLES), np.arange(N_ANGLES)
    engine = small_engine(library="triton")
    engine.push(PHANTOM.raw(theta, 10.2), theta, slots)
    engine.reconstruct(PARAMS)
    calls = []

    def fail(*_):
        calls.append("filter")
        raise RuntimeError("out of memory")

    monkeypatch.setattr(engine._chain, "filter", fail)
    monkeypatch.setattr(engine._chain, "taken", lambda: calls.append("taken"))
    with pytest.raises(RuntimeError, match="out of memory"):
        engine.push(PHANTOM.raw(theta[:2], 10.2), theta[:2], slots[:2])
    assert "filter" in calls
    assert calls[-1] == "taken"
