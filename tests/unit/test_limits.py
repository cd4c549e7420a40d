"""Memory that frames give back stays with the process: its pages are not cleared again."""

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
