"""What the engine is made of: shares of the half turn, memory, devices, worker threads."""

import gc
import os
import subprocess
import sys
import threading
import weakref

import numpy as np
import pytest
import torch
from test_recon_phantom import half_turn

from tomostream_ioc.errors import ArmingError, ConfigError
from tomostream_ioc.recon import memory
from tomostream_ioc.recon.devices import pinned_empty, resolve_device
from tomostream_ioc.recon.engine import OrthoEngine
from tomostream_ioc.recon.geometry import ScanGeometry
from tomostream_ioc.recon.ring import Ring, angle_shares, rounded_weights
from tomostream_ioc.recon.workers import Workers


def test_shares_of_angles():
    even = np.deg2rad(half_turn(12))
    np.testing.assert_allclose(angle_shares(even, 12), 1.0)
    np.testing.assert_allclose(angle_shares(even[3:8] + 5 * np.pi, 12), 1.0)  # not yet full
    np.testing.assert_allclose(angle_shares(even[:1], 12), 1.0)
    np.testing.assert_allclose(angle_shares(even[:2], 12), 1.0)
    np.testing.assert_allclose(angle_shares(even[::3], 12), 3.0)
    np.testing.assert_allclose(angle_shares(np.zeros(5), 12), 1.0)
    gap = angle_shares(np.delete(even, 5), 12)
    np.testing.assert_allclose(gap, [1, 1, 1, 1, 1.5, 1.5, 1, 1, 1, 1, 1])
    twice = angle_shares(np.append(even, even[4] + np.pi), 12)
    np.testing.assert_allclose(twice[[4, 12]], 0.5, atol=1e-9)


def test_even_angles_count_the_same_whatever_their_noise():
    ring = Ring(1500, 4)
    theta = np.deg2rad((np.arange(1500) * 0.12 + 60000).astype(np.float32).astype(np.float64))
    for first in range(0, 1500, 100):
        neighbours = ring.put_raw(np.arange(first, first + 100), theta[first : first + 100])
        ring.put_filtered(np.arange(first, first + 100))
        assert len(neighbours) == 0
    assert ring.total_weight == 1500.0


@pytest.mark.parametrize("turn", [0.0, 180.0, -900.0])
def test_frames_of_the_same_angles_leave_the_shares_as_they_are(turn):
    theta = np.deg2rad(half_turn(60) + np.where(np.arange(60) % 7 == 0, 1.1, 0.0))
    ring, slots = Ring(60, 4), np.arange(60)
    for angles in (theta, theta + np.deg2rad(turn)):
        neighbours = [ring.put_raw(slots[i : i + 4], angles[i : i + 4]) for i in range(0, 60, 4)]
        ring.put_filtered(slots)
    assert sum(len(views) for views in neighbours) == 0  # of the second time
    assert ring.stale_slots().size == 0
    np.testing.assert_array_equal(ring.theta_rad, angles)
    np.testing.assert_array_equal(ring.weights, rounded_weights(angle_shares(theta, 60)))
    assert len(set(ring.weights)) > 2


def test_a_frame_of_another_angle_moves_the_shares_of_its_neighbours():
    theta, slots = np.deg2rad(half_turn(60)), np.arange(60)
    ring = Ring(60, 4)
    ring.put_raw(slots, theta)
    ring.put_filtered(slots)
    theta[30] += np.deg2rad(1.0)
    moved = ring.put_raw(slots[30:31], theta[30:31])
    np.testing.assert_array_equal(np.sort(moved.frames), [29, 31])
    np.testing.assert_array_equal(ring.weights, rounded_weights(angle_shares(theta, 60)))


def test_memory_is_counted_and_refused_when_it_is_not_there(monkeypatch):
    geometry = ScanGeometry(n_angles=1500, n_rows=2048, n_cols=2448)
    needed = OrthoEngine.bytes_needed(geometry, "uint16", "cpu")
    rings = 2 * 2 * 1500 * 2048 * 2448
    assert rings < needed < 1.06 * rings
    monkeypatch.setattr(memory, "free_host_bytes", lambda: 1 << 30)
    with pytest.raises(ArmingError, match=r"15\.\d GiB of memory, 1\.0 GiB are free"):
        OrthoEngine(geometry, "uint16", "cpu")


def test_devices_that_are_not_there_are_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("auto") == "cpu"
    for device in ("gpu", "cuda:x", "cuda", "cuda:1"):
        with pytest.raises(ConfigError, match="device"):
            resolve_device(device)


def test_pinned_memory_is_ordinary_memory_here():
    array = pinned_empty((3, 4, 5), "uint16")
    array[:] = 7
    assert array.shape == (3, 4, 5)
    assert array.dtype == np.uint16


def test_workers_end_what_they_do_before_they_raise():
    workers = Workers(lambda: None, 2)
    begun, done = [], []

    def piece(i):
        begun.append(i)
        if i == 0:
            raise ValueError("piece 0")
        threading.Event().wait(0.02)
        done.append(i)

    with pytest.raises(ValueError, match="piece 0"):
        workers.map(piece, range(50))
    assert sorted([0, *done]) == sorted(begun)
    assert workers.map(lambda i: i * i, range(4)) == [0, 1, 4, 9]
    workers.close()


@pytest.mark.parametrize("end", [lambda pool: pool.close(), lambda _: None])
def test_threads_of_workers_end_with_them(end):
    others = set(threading.enumerate())
    workers = Workers(lambda: None, 3)
    own = set(threading.enumerate()) - others
    assert len(own) == 3
    assert workers.map(abs, range(-5, 0)) == [5, 4, 3, 2, 1]
    end(workers)
    del workers  # who forgets to close them loses none
    for thread in own:
        thread.join(5)
    assert not any(thread.is_alive() for thread in own)


def test_workers_that_have_ended_take_no_work():
    workers = Workers(lambda: None, 2)
    workers.close()
    workers.close()  # nothing more to end
    with pytest.raises(RuntimeError, match="these workers have ended"):
        workers.map(abs, range(5))


_ENDS_AMID_WORK = """
import threading
import torch
from tomostream_ioc.recon.workers import Workers

torch.set_num_threads(1)
rows = torch.ones(40, 4096)
workers, begun = Workers(lambda: None, 3), threading.Event()

def transform(_):
    begun.set()  # C++ that lets go of the interpreter: without it it can't come back
    torch.fft.rfft(rows)

def work_without_end():
    while True:
        try:
            workers.map(transform, range(12))
        except RuntimeError:
            return

threading.Thread(target=work_without_end, daemon=True).start()
begun.wait()
"""


def test_a_program_may_end_while_workers_work():
    ended = subprocess.run(
        [sys.executable, "-c", _ENDS_AMID_WORK], capture_output=True, text=True, timeout=60
    )
    assert (ended.returncode, ended.stderr) == (0, "")


def test_pieces_are_shared_out_to_all_workers():
    workers = Workers(lambda: None, 3)
    all_there = threading.Barrier(3, timeout=5)
    names = workers.map(lambda _: (all_there.wait(), threading.current_thread().name)[1], range(3))
    assert len(set(names)) == 3
    pieces = []
    workers.split(1000, lambda first, end: pieces.append((first, end)))
    pieces.sort()
    assert [first for first, _ in pieces] == [0, *(end for _, end in pieces[:-1])]
    assert pieces[-1][1] == 1000
    workers.split(0, lambda *_: pytest.fail("there is nothing to do"))
    workers.close()


def test_what_failed_lets_go_of_its_arrays():
    workers, array = Workers(lambda: None, 2), np.zeros(3)
    gone = weakref.ref(array)

    def fail(_, held=array):
        raise MemoryError(held.shape)

    gc.disable()
    try:
        with pytest.raises(MemoryError):
            workers.map(fail, range(4))
        del fail, array
        assert gone() is None
    finally:
        gc.enable()
    workers.close()


def test_heart_beats_while_workers_work():
    beats, begun = [], []

    def heartbeat():
        beats.append(len(begun))
        if len(beats) == 3:
            raise InterruptedError

    workers = Workers(heartbeat, 2)

    def piece(i):
        begun.append(i)
        threading.Event().wait(0.1)

    with pytest.raises(InterruptedError):
        workers.map(piece, range(100))
    assert len(beats) == 3
    assert len(begun) < 30
    workers.close()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has priorities of threads")
def test_workers_give_way_to_the_threads_that_serve_clients():
    workers = Workers(lambda: None, 1)

    def priority(_):
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    own = priority(None)
    assert workers.map(priority, [0]) == [min(own + 5, 19)]
    assert priority(None) == own
    workers.close()
