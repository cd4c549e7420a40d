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

from tomostream_ioc.recon.engine import OrthoEngine
from tomostream_ioc.recon.geometry import ScanGeometry
from tomostream_ioc.recon.gpu.probe import is_interpreted, why_not

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


@pytest.mark.skipif(is_interpreted(), reason="kernels are interpreted here")
def test_a_device_that_triton_cannot_compile_for_is_refused_with_the_reason():
    assert why_not("cpu")
    with pytest.raises(ValueError, match="on a GPU, in float32"):
        OrthoEngine(ScanGeometry(4, 4, 4), device="cpu", library="triton")
    with pytest.raises(ValueError, match="numba, torch or triton"):
        OrthoEngine(ScanGeometry(4, 4, 4), device="cpu", library="cupy")
