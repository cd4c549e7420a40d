"""The engine with Triton kernels on the CPU, interpreted."""

from support.interpreted import all_pass_interpreted, needs_triton, takes_long


@needs_triton
@takes_long
def test_engine_interpreted():
    all_pass_interpreted("interpreted_engine.py")
