"""The Triton kernels on the CPU: their tests run in a process of their own.

Triton decides when it is imported whether kernels are compiled or interpreted; in this process it
must stay as it is.
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

CASES = Path(__file__).with_name("interpreted_triton.py")


@pytest.mark.skipif(not importlib.util.find_spec("triton"), reason="triton is not installed here")
@pytest.mark.timeout(400)
def test_kernels_and_engine_interpreted():
    child = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", str(CASES)],
        cwd=CASES.parents[2],
        env=os.environ | {"TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=380,
        check=False,
    )
    assert child.returncode == 0, child.stdout + child.stderr
    assert " passed" in child.stdout
    assert "skipped" not in child.stdout
