"""What the engine is made of: shares of the half turn, memory, devices, worker threads."""

import os
import sys
import threading

import numpy as np
import pytest
import torch
from test_recon_phantom import half_turn

from tomostream_ioc.errors import ArmingError, ConfigError
from tomostream_ioc.recon import memory
from tomostream_ioc.recon.devices import pinned_empty, resolve_device
from tomostream_ioc.recon.engine import OrthoEngine
from tomostream_ioc.recon.geometry import ScanGeometry
from tomostream_ioc.recon.ring import Ring, angle_shares
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
