"""Memory policies: which one is chosen, what it takes, and what happens when memory runs out."""

import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
import torch
from test_recon_phantom import Phantom, engine_for, half_turn, middle, worst

from tomostream_ioc.errors import ArmingError, EngineError
from tomostream_ioc.recon import memory
from tomostream_ioc.recon.engine import OrthoEngine
from tomostream_ioc.recon.geometry import ScanGeometry
from tomostream_ioc.recon.memory import Budget, Policy

GIB = 1 << 30
#: a detector of 5 megapixels, 1500 angles
LARGE = ScanGeometry(n_angles=1500, n_rows=2048, n_cols=2448)
FRAME_BYTES = 2 * 2048 * 2448
#: a long scan of a small detector
LONG = ScanGeometry(n_angles=6000, n_rows=32, n_cols=48)
PHANTOM = Phantom(64, 24)
N_ANGLES = 48
THETA = half_turn(N_ANGLES)
SLOTS = np.arange(N_ANGLES)
RAW = PHANTOM.raw(THETA, 31.0)
OTHER = Phantom(64, 24, scale=0.6).raw(THETA + 180.0, 31.0)
PARAMS = middle(PHANTOM, center=31.0)


def chosen(on_device, on_host, device="cuda:0"):
    """Where (policy, raw frames) live by the first plan that fits."""
    budget = Budget(on_device, on_host, limited=False, device=device)
    fitting = [plan for plan in memory.plans(LARGE, "uint16", device) if budget.holds(plan)]
    return (fitting[0].policy, fitting[0].raw_on) if fitting else None


def test_the_first_policy_that_fits_is_taken():
    assert chosen(40 * GIB, 0) == (Policy.ALL, "cuda:0")
    assert chosen(20 * GIB, 32 * GIB) == (Policy.RAW_ON_HOST, "cpu")
    assert chosen(6 * GIB, 32 * GIB) == (Policy.CHUNKED, "cpu")
    assert chosen(20 * GIB, 1 * GIB) == (Policy.CHUNKED, "cuda:0")
    assert chosen(6 * GIB, 1 * GIB) is None
    assert chosen(1 * GIB, 64 * GIB) is None
    assert chosen(40 * GIB, 40 * GIB, "cpu") == (Policy.ALL, "cpu")
    assert chosen(20 * GIB, 20 * GIB, "cpu") == (Policy.CHUNKED, "cpu")
    assert chosen(10 * GIB, 10 * GIB, "cpu") is None
    assert chosen(None, None, "cpu") == (Policy.ALL, "cpu")


def test_chunked_takes_half_the_memory_on_the_cpu_and_little_of_a_gpu():
    everything, chunked = memory.plans(LARGE, "uint16", "cpu")
    raw = 1500 * FRAME_BYTES
    assert everything.on_device == OrthoEngine.bytes_needed(LARGE, "uint16", "cpu")
    assert 2 * raw < everything.on_device < 2.1 * raw
    assert raw < chunked.on_device < 1.1 * raw
    gpu = {plan.raw_on: plan for plan in memory.plans(LARGE, "uint16", "cuda:0")[2:]}
    assert gpu["cpu"].on_device < 0.3 * raw
    assert raw < gpu["cpu"].on_host < 2 * raw
    assert gpu["cuda:0"].on_host == 0


def test_limit_and_free_memory_the_lower_counts(monkeypatch):
    monkeypatch.setattr(memory, "free_host_bytes", lambda: 10 * GIB)
    assert Budget.now("cpu", None).on_device == 10 * GIB
    assert Budget.now("cpu", 4 * GIB).on_device == 4 * GIB
    assert Budget.now("cpu", 40 * GIB).on_device == 10 * GIB
    with pytest.raises(ArmingError, match=r"15\.\d GiB of memory, 10\.0 GiB are free"):
        OrthoEngine(LARGE, "uint16", "cpu", memory_limit=40 * GIB)
    with pytest.raises(ArmingError, match=r"15\.\d GiB of memory, 4\.0 GiB are allowed by"):
        OrthoEngine(LARGE, "uint16", "cpu", memory_limit=4 * GIB)


def test_refusal_names_what_is_lacking_beside_a_gpu():
    plans = memory.plans(LARGE, "uint16", "cuda:0")
    short = Budget(2 * GIB, 99 * GIB, limited=False, device="cuda:0").refusal(plans)
    assert "GiB of GPU memory, 2.0 GiB are free" in str(short)
    short = Budget(6 * GIB, 1 * GIB, limited=True, device="cuda:0").refusal(plans)
    assert "16.0 GiB of memory beside the GPU's, 1.0 GiB are free" in str(short)


@pytest.mark.parametrize("library", ["numba", "torch"])
def test_an_engine_takes_the_policy_of_its_limit_and_not_more(library):
    everything, chunked = memory.plans(LONG, "uint16", "cpu")
    for limit, plan in ((everything.on_device, everything), (chunked.on_device, chunked)):
        engine = OrthoEngine(LONG, "uint16", "cpu", library=library, memory_limit=limit)
        assert engine.memory.policy == plan.policy
        assert engine.memory.n_bytes == plan.on_device <= limit
        assert engine.memory.note == plan.policy.note
        engine.release()
    with pytest.raises(ArmingError, match=r"\(chunked\) needs .* MiB of memory, .* MiB are allow"):
        OrthoEngine(LONG, "uint16", "cpu", library=library, memory_limit=chunked.on_device - 1)


@pytest.mark.parametrize("policy", ["all on device", "chunked"])
def test_what_an_engine_takes_is_what_it_said(policy):
    geometry = ScanGeometry(n_angles=600, n_rows=64, n_cols=256)
    rng = np.random.default_rng(0)
    tracemalloc.start()
    engine = OrthoEngine(geometry, "uint16", "cpu", policy=policy, n_threads=1)
    engine.set_dark(np.zeros((64, 256)))
    engine.set_flat(np.full((64, 256), 6e4))
    frames = rng.integers(1, 60000, (60, 64, 256)).astype("uint16")
    for first in range(0, 600, 60):
        engine.push(frames, np.arange(first, first + 60) * 0.3, np.arange(first, first + 60))
        engine.reconstruct(middle(Phantom(256, 64)))
    peak = tracemalloc.get_traced_memory()[1] - frames.nbytes
    tracemalloc.stop()
    assert peak <= engine.memory.n_bytes
    engine.release()


def test_an_unknown_policy_is_refused():
    with pytest.raises(ValueError, match="raw on host"):
        OrthoEngine(LONG, "uint16", "cpu", policy="raw on host")


class ShortOfMemory:
    """Raises what a library raises, in the ``nth`` call of a method, and in the next ``times``."""

    def __init__(self, owner, name, error, nth, times=1):
        self._calls = 0
        self._real = getattr(owner, name)
        self._fails = range(nth, nth + times)
        self._error = error
        setattr(owner, name, self)

    def __call__(self, *arguments):
        self._calls += 1
        if self._calls in self._fails:
            raise self._error
        return self._real(*arguments)


def full_engine(**options):
    engine = engine_for(PHANTOM, N_ANGLES, **options)
    engine.push(RAW, THETA, SLOTS)
    return engine


@pytest.mark.parametrize("library", ["numba", "torch"])
@pytest.mark.parametrize(
    ("where", "name", "error"),
    [
        ("chain", "filter", MemoryError()),
        ("chain", "store_raw", MemoryError("Unable to allocate 8 MiB")),
        ("projector", "add_vertical", torch.OutOfMemoryError("CUDA out of memory")),
        ("projector", "output", RuntimeError("DefaultCPUAllocator: can't allocate memory")),
    ],
)
@pytest.mark.parametrize("nth", [1, 2])
def test_out_of_memory_falls_back_once_with_the_raw_frames_kept(library, where, name, error, nth):
    engine = full_engine(library=library)
    engine.reconstruct(PARAMS)
    assert engine.memory.policy == "all on device"
    ShortOfMemory(getattr(engine._backend, where), name, error, nth)
    raw, theta = RAW.copy(), THETA.copy()
    raw[:20], theta[:20] = OTHER[:20], THETA[:20] + 180.0
    fresh = engine_for(PHANTOM, N_ANGLES, library=library)
    fresh.push(raw, theta, SLOTS)
    for _ in range(2):
        engine.push(raw[:20], theta[:20], SLOTS[:20])
        shown = engine.reconstruct(PARAMS)
        assert worst(shown, fresh.reconstruct(PARAMS)) < 1e-5
    assert engine.memory.policy == "chunked"
    assert engine.memory.note.startswith("out of memory while running, now chunked")
    assert engine.memory.n_bytes < fresh.memory.n_bytes
    assert engine.n_filled == N_ANGLES
    ShortOfMemory(engine._backend.projector, "output", MemoryError("no"), 1, times=9)
    with pytest.raises(EngineError, match=r"out of memory again, by the .* chunked \(no\)"):
        engine.reconstruct(PARAMS)
    engine.release()


def test_a_search_for_the_axis_falls_back_as_well():
    engine = engine_for(PHANTOM, N_ANGLES)
    engine.push(RAW, THETA, SLOTS)
    expected = engine.find_center(PARAMS).center
    ShortOfMemory(engine._backend.chain, "line_integrals", MemoryError("no"), 1)
    assert engine.find_center(PARAMS).center == expected
    assert engine.memory.policy == Policy.CHUNKED


def test_another_failure_is_not_taken_for_it():
    engine = full_engine()
    ShortOfMemory(engine._backend.chain, "filter", RuntimeError("illegal memory access"), 1)
    with pytest.raises(RuntimeError, match="illegal memory access"):
        engine.reconstruct(PARAMS)
    assert engine.memory.policy == "all on device"


def test_the_smallest_policy_has_nothing_to_fall_back_to():
    engine = full_engine(policy="chunked")
    ShortOfMemory(engine._backend.chain, "filter", MemoryError("no"), 1)
    with pytest.raises(EngineError, match="no smaller memory policy than chunked"):
        engine.reconstruct(PARAMS)
    engine.release()
    engine.release()


@pytest.mark.parametrize("policy", ["all on device", "chunked"])
def test_bad_pixels_are_those_of_the_newest_frame(policy):
    raw = RAW.astype("float32")
    raw[:, 3, 5] = np.nan
    engine = engine_for(PHANTOM, N_ANGLES, dtype="float32", policy=policy)
    engine.push(raw, THETA, SLOTS)
    engine.reconstruct(PARAMS)
    assert engine.bad_pixels == 1
    newest = OTHER[:4].astype("float32")
    newest[-1, 7, 8:11] = np.inf
    engine.push(newest, THETA[:4] + 180.0, SLOTS[:4])
    assert engine.bad_pixels == 3
    engine.reconstruct(middle(PHANTOM, center=30.0))
    assert engine.bad_pixels == 3


NO_MEMORY = """
import resource, sys
import numpy as np
from tomostream_ioc.model.params import ReconParams
from tomostream_ioc.recon.engine import OrthoEngine
from tomostream_ioc.recon.geometry import ScanGeometry

def limit(more):
    pages = int(open("/proc/self/statm").read().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + more, -1))

n = 3072
engine = OrthoEngine(ScanGeometry(n_angles=20000, n_rows=4, n_cols=n), "uint16", "cpu",
                     library=sys.argv[1], n_threads=1)
engine.set_flat(np.full((4, n), 5e4))
frames = np.full((8, 4, n), 40000, "uint16")
params = ReconParams(center=1500.0, ortho_x=9, ortho_y=9, ortho_z=2)
engine.push(frames, np.arange(8) * 20.0, np.arange(8))
before = engine.reconstruct(params)
limit(20 << 20)  # the z slice alone is 36 MiB
after = engine.reconstruct(params)
assert np.abs(before.z - after.z).max() < 1e-6
print(engine.memory.note)
kept = [after]
limit(20 << 20)
try:
    engine.reconstruct(params)
except Exception as error:
    print(type(error).__name__, error)
"""


@pytest.mark.parametrize("library", ["numba", "torch"])
def test_a_process_that_gets_no_more_memory(library):
    """Nothing is simulated: the address space of a process is limited while it runs."""
    ran = subprocess.run(
        [sys.executable, "-c", NO_MEMORY, library], capture_output=True, text=True, timeout=300
    )
    assert ran.returncode == 0, ran.stderr
    first, second = ran.stdout.splitlines()
    assert first.startswith("out of memory while running, now chunked")
    assert second.startswith("EngineError out of memory again, by the memory policy chunked")
