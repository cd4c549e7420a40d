"""The Triton kernels on the CPU, interpreted; and a device that they can't be compiled for."""

import pytest
from support.interpreted import all_pass_interpreted, needs_triton, takes_long

from tomostream_ioc.recon.engine import OrthoEngine
from tomostream_ioc.recon.geometry import ScanGeometry
from tomostream_ioc.recon.gpu.probe import is_interpreted, why_not


@needs_triton
@takes_long
def test_kernels_interpreted():
    all_pass_interpreted("interpreted_kernels.py")


@pytest.mark.skipif(is_interpreted(), reason="kernels are interpreted here")
def test_a_device_that_triton_cannot_compile_for_is_refused_with_the_reason():
    assert why_not("cpu")
    with pytest.raises(ValueError, match="on a GPU, in float32"):
        OrthoEngine(ScanGeometry(4, 4, 4), device="cpu", library="triton")
    with pytest.raises(ValueError, match="numba, torch or triton"):
        OrthoEngine(ScanGeometry(4, 4, 4), device="cpu", library="cupy")
