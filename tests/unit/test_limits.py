"""Memory that frames give back stays with the process while it works, and goes when it has done."""

import json
import platform
import subprocess
import sys

import pytest

SCRIPT = """
import json, resource, sys, threading
import numpy as np
from tomostream_ioc.limits import keep_freed_memory

kept = keep_freed_memory() if sys.argv[1] == "keep" else None

def frames():
    # three at a time, as they wait, in a thread that is not the first: as the stream's is
    for _ in range(20):
        waiting = [bytearray(10_000_000) for _ in range(3)]
        slices = [np.zeros((1024, 2448), np.float32) for _ in range(2)]

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    thread = threading.Thread(target=frames)
    thread.start()
    thread.join()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()
print(json.dumps([kept, faults()]))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_pages_of_frames_are_cleared_once():
    def run(how):
        command = [sys.executable, "-c", SCRIPT, how]
        return json.loads(subprocess.run(command, check=True, capture_output=True).stdout)

    _, as_it_is = run("leave")
    kept, faults = run("keep")
    assert kept
    assert faults < 0.2 * as_it_is


IDLE_SCRIPT = """
import asyncio, json
from tomostream_ioc import limits

kept = limits.keep_freed_memory()
limits._LOOK_EVERY_S = 0.05

def mib():
    with open("/proc/self/statm") as sizes:
        return int(sizes.read().split()[1]) * 4096 / 2**20

def work():
    frames = [bytearray(4_000_000) for _ in range(200)]
    for frame in frames:
        frame[::4096] = bytes(len(range(0, len(frame), 4096)))
    return bytearray(100_000)  # what is used lies above what is free

async def main():
    busy = True
    tidying = asyncio.create_task(limits.give_back_after_work(lambda: busy))
    before, used = mib(), work()
    await asyncio.sleep(0.5)
    while_busy = mib()
    busy = False
    while mib() > while_busy / 2 and not tidying.done():
        await asyncio.sleep(0.05)
    given_back = mib()
    again = work()
    await asyncio.sleep(0.5)
    sizes = [size - before for size in (while_busy, given_back, mib())]
    print(json.dumps([kept, tidying.done(), *sizes]))

asyncio.run(asyncio.wait_for(main(), 30))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_what_is_free_is_given_back_once_when_work_has_ended():
    command = [sys.executable, "-c", IDLE_SCRIPT]
    result = subprocess.run(command, check=True, capture_output=True, timeout=60)
    kept, has_ended, while_busy, given_back, afterwards = json.loads(result.stdout)
    assert kept
    assert not has_ended
    assert while_busy > 600
    assert given_back < while_busy / 2
    assert afterwards > 600  # not while nothing has worked
