"""The engine on a GPU that is not there: places, order, recording, and what fails there."""

import gc
import importlib.util
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from support.peak_images import as_pixels, diffraction
from support.pretended_cuda import PretendedGpu
from support.pretended_memory import NotOnAGpu

from tomostream_ioc.errors import ArmingError, EngineError
from tomostream_ioc.model.params import ReconParams
from tomostream_ioc.recon.devices import pinned_empty
from tomostream_ioc.recon.engine import OrthoEngine
from tomostream_ioc.recon.geometry import ScanGeometry
from tomostream_ioc.recon.gpu.queue import Numbers
from tomostream_ioc.tracking import Locator

pytestmark = pytest.mark.skipif(
    not importlib.util.find_spec("triton"), reason="triton is not installed here"
)
K, N_ROWS, N = 8, 3, 20
BASE = ReconParams(center=N / 2 + 0.3, ortho_x=5, ortho_y=8, ortho_z=1)
#: what a user changes while frames come
CHANGES: tuple[dict[str, Any], ...] = (
    {"center": 8.1, "ortho_z": 0},
    {"filter_type": "Ramp"},
    {"rot_x_deg": 4.0, "rot_y_deg": 3.0, "rot_z_deg": 5.0},
    {"ring_removal": "fw", "rot_z_deg": 0.0},
    {"ring_removal": "fw", "energy_kev": 20.0, "distance_mm": 20.0, "alpha": 1e-3,
     "pixel_size_um": 20.0},
    {"ring_removal": "None", "energy_kev": 0.0, "distance_mm": 0.0, "alpha": 0.0},
)  # fmt: skip


def frames_of(k, seed, dtype="uint16"):
    rng = np.random.default_rng(seed)
    return rng.integers(20000, 50000, (k, N_ROWS, N)).astype(dtype)


def engine_on(device, library="auto", dtype="uint16", **options) -> Any:
    engine = OrthoEngine(ScanGeometry(K, N_ROWS, N), dtype, device, library=library, **options)
    engine.set_dark(np.full((N_ROWS, N), 100.0))
    engine.set_flat(np.full((N_ROWS, N), 60000.0))
    return engine


def streamed(engine, dtype="uint16", changes=CHANGES):
    """Slices after each batch of a scan, while parameters and fields change."""
    buffer = pinned_empty((4, N_ROWS, N), dtype)
    params, shown = BASE, []

    def push(k, first, turn, seed):
        slots = (np.arange(k) + first) % K
        buffer[:k] = frames_of(k, seed, dtype)
        if dtype == "float32":
            buffer[k - 1, 0, 3:5] = np.nan, np.inf
        engine.push(buffer[:k], slots * 180.0 / K + 180.0 * turn, slots)
        buffer[:] = seed  # push has returned: the caller may do with it what it likes

    push(4, 0, 0, 1)
    shown.append(engine.reconstruct(params))
    push(4, 4, 0, 2)
    shown.append(engine.reconstruct(params))
    for turn, change in enumerate(changes, 1):
        params = replace(params, **change)
        push(3, turn, turn, 2 * turn + 1)
        push(1, turn + 3, turn, 2 * turn + 2)
        shown.append(engine.reconstruct(params))
        shown.append(engine.reconstruct(params))
    flat = np.full((N_ROWS, N), 55000.0)
    flat[0, 4:6] = np.nan
    engine.set_flat(flat)
    push(2, 1, 9, 30)
    shown.append(engine.reconstruct(params))
    return shown


def hurried(engine, dtype="uint16", params=BASE):
    """Batches one close behind the other, also for slots that have only just been filled."""
    buffer = pinned_empty((4, N_ROWS, N), dtype)

    def push(seed, first):
        slots = (np.arange(4) + first) % K
        buffer[:] = frames_of(4, seed, dtype)
        engine.push(buffer, slots * 180.0 / K, slots)
        buffer[:] = seed

    push(1, 0)
    push(2, 4)
    shown = [engine.reconstruct(params)]
    for seed, first in enumerate((0, 4, 0, 0, 2, 7, 7, 1, 5), 3):
        push(seed, first)
    return [*shown, engine.reconstruct(params)]


def assert_same(got, expected, tolerance=2e-4):
    assert len(got) == len(expected)
    for i, (one, other) in enumerate(zip(got, expected, strict=True)):
        for name in "zyx":
            a, b = getattr(one, name), getattr(other, name)
            assert np.abs(a - b).max() < tolerance * np.abs(b).max(), (i, name)


POLICIES = ("all on device", "raw on host", "chunked")


@pytest.mark.parametrize(
    ("library", "dtype", "policy"),
    [("triton", "uint16", policy) for policy in POLICIES]
    + [("triton", "float32", "all on device"), ("torch", "uint16", "raw on host")],
)
def test_streaming_equals_the_cpu(library, dtype, policy):
    expected = streamed(engine_on("cpu", dtype=dtype), dtype)
    with PretendedGpu():
        engine = engine_on("cuda:1", library, dtype, policy=policy)
        got = streamed(engine, dtype)
        engine.release()
    assert_same(got, expected)


PHASE = replace(BASE, energy_kev=20.0, distance_mm=20.0, alpha=1e-3, pixel_size_um=20.0)


@pytest.mark.parametrize(
    ("policy", "params"), [*((policy, BASE) for policy in POLICIES), ("raw on host", PHASE)]
)
def test_frames_in_a_hurry_do_not_overtake_each_other(policy, params):
    expected = hurried(engine_on("cpu"), params=params)
    with PretendedGpu() as gpu:
        engine = engine_on("cuda", "triton", policy=policy)
        got = hurried(engine, params=params)
        engine.release()
        assert gpu.used < 100_000
    assert_same(got, expected)


def test_two_gpus_and_a_recording_that_fails(caplog):
    expected = hurried(engine_on("cpu"))
    with PretendedGpu() as gpu:
        engine_on("cuda:0", "triton").release()  # torch keeps the stream that this recorded on
        engine = engine_on("cuda:1", "triton")
        assert engine.chain._replay.n_recorded == 2
        got = hurried(engine)
        gpu.refuses_graphs = True
        before = gpu.current_stream("cuda:1")
        engine = engine_on("cuda:1", "triton")
        assert engine.chain._replay.n_recorded == 0
        assert "no CUDA graph, kernels are launched one by one" in caplog.text
        assert gpu.current_stream("cuda:1") is before
        assert gpu.device_of(None).index == 0
        launched = hurried(engine)
    assert_same(got, expected)
    assert_same(launched, expected)


def test_without_triton_torch_computes_and_says_so(monkeypatch):
    with PretendedGpu():
        assert "cuda:0 by triton" in engine_on("cuda").where
        monkeypatch.setitem(sys.modules, "triton.errors", None)
        engine = engine_on("cuda")
        assert "not by triton: import of triton.errors halted" in engine.where
        got = hurried(engine)
    assert_same(got, hurried(engine_on("cpu")))


class Refusing:
    """A kernel that raises as it is launched."""

    def __init__(self, error):
        self.error = error

    def __getitem__(self, grid):
        raise self.error


def test_what_triton_raises_at_its_first_kernel(monkeypatch):
    with PretendedGpu(), monkeypatch.context() as patch:
        for error in (
            AssertionError("libcuda.so cannot found!"),
            RuntimeError("Failed to find C compiler"),
        ):
            patch.setattr("tomostream_ioc.recon.gpu.filter.multiply", Refusing(error))
            where = engine_on("cuda").where
            assert f"not by triton: {type(error).__name__}: {error}" in where
        error = RuntimeError("Triton Error [CUDA]: out of memory")
        patch.setattr("tomostream_ioc.recon.gpu.filter.multiply", Refusing(error))
        with pytest.raises(ArmingError, match="do not fit into memory: Triton Error"):
            engine_on("cuda")


def test_each_allocation_may_be_the_one_that_is_too_much():
    """One smaller policy is taken, once; what can't be done is said, and the memory is back."""
    expected = hurried(engine_on("cpu"))
    n_fell_back = 0
    with PretendedGpu() as gpu:
        engine_on("cuda", "triton").release()
        left = gpu.used
        for fail_at in (3, 30, 60, 90):
            gpu.fail_at = fail_at
            engine = engine_on("cuda", "triton")
            got = hurried(engine)
            n_fell_back += engine.memory.note.startswith("out of memory while running, now ")
            assert_same(got, expected)
            engine.release()
            del engine
            gc.collect()
            assert gpu.used <= left
        gpu.fails_on = True  # also what the smallest policy takes
        for fail_at in (3, 30, 60):
            gpu.fail_at = fail_at
            with pytest.raises((ArmingError, EngineError), match="memory") as refused:
                hurried(engine_on("cuda", "triton"))
            del refused
            gc.collect()
            assert gpu.used <= left
    assert n_fell_back


def test_a_lost_gpu_is_a_fault_and_not_a_lack_of_memory():
    with PretendedGpu() as gpu:
        engine = engine_on("cuda", "triton")
        hurried(engine)
        gpu.lost = True
        for work in (lambda: hurried(engine), engine.release):
            with pytest.raises(RuntimeError, match="unspecified launch failure"):
                work()
        assert engine.memory.policy == "all on device"


def test_numbers_are_not_written_before_they_were_sent():
    device = torch.device("cuda:0")
    with PretendedGpu():
        numbers = Numbers(3, torch.float64, device)
        for i in range(30):
            numbers.host()[:] = i
            numbers.send()
        assert numbers.on_device.tolist() == [29.0, 29.0, 29.0]


def test_locate_waits_for_the_gpu_a_few_times_for_many_images():
    images = np.stack([as_pixels(diffraction((80, 90), 3, seed=i), "uint16") for i in range(8)])
    with PretendedGpu() as gpu, Locator(9, device="cuda:1") as locator:
        locator.locate_many(images)
        gpu.waited.clear()
        tables = locator.locate_many(images)
        assert len(gpu.waited) <= 8
        again = locator.locate_many(torch.from_numpy(images).to("cuda:1"))
        assert locator.counts.fast == 24
    with Locator(9) as locator:
        expected = locator.locate_many(images)
    for table, other, one in zip(tables, again, expected, strict=True):
        assert len(table) == len(one) > 0
        np.testing.assert_allclose(table["mass"], one["mass"], rtol=1e-9)
        assert table.equals(other)


# ---- that it would be noticed


def test_what_a_gpu_does_not_forgive_is_raised():
    def unwaited_copy(there, side):
        with torch.cuda.stream(side):
            there.zero_()
        return there + 1

    def other_device(there, _):
        return there + torch.ones(3, device="cuda:1")

    def on_the_host(there, _):
        return there + torch.ones(3)

    def pinned_overwritten(there, _):
        host = torch.ones(3, pin_memory=True)
        there.copy_(host, non_blocking=True)
        host.zero_()
        torch.cuda.synchronize()

    def given_back(there, side):
        side.wait_stream(torch.cuda.current_stream())
        other = torch.ones(3, device="cuda:0")
        with torch.cuda.stream(side):
            side.wait_stream(torch.cuda.current_stream("cuda:0"))
        torch.cuda.synchronize()
        with torch.cuda.stream(side):
            other.add_(1)
        del other

    for work, message in (
        (unwaited_copy, "what another stream writes was not waited for"),
        (other_device, "tensors on cuda:0 and on cuda:1"),
        (on_the_host, "tensors on cuda:0 and on cpu"),
        (pinned_overwritten, "pinned memory was written before it had been copied"),
        (given_back, "memory is given back while streams"),
    ):
        with pytest.raises(NotOnAGpu, match=message), PretendedGpu():
            work(torch.ones(3, device="cuda:0"), torch.cuda.Stream())


def test_what_cannot_be_recorded_is_refused():
    def recorded(work):
        there = torch.ones(3, device="cuda:0")
        with torch.cuda.graph(torch.cuda.CUDAGraph(), stream=torch.cuda.Stream()):
            work(there)

    for work in (
        lambda there: there.sum().item(),
        lambda there: there.copy_(torch.ones(3)),
        lambda there: torch.fft.rfft(there),
        lambda there: torch.ones(3, pin_memory=True),
    ):
        with PretendedGpu(), pytest.raises(RuntimeError, match="when stream is capturing"):
            recorded(work)
