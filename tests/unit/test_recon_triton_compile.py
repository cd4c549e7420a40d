"""The Triton kernels compile for a GPU, also where there is none: the interpreter takes more."""

import importlib.util
import os
from typing import Any

import pytest

pytestmark = [
    pytest.mark.skipif(
        not importlib.util.find_spec("triton"), reason="triton is not installed here"
    ),
    pytest.mark.skipif(
        os.environ.get("TRITON_INTERPRET") == "1", reason="kernels are interpreted here"
    ),
]

N, N_ROWS, PITCH = 2448, 2047, 2048
FRAMES = {"N": N, "N_ROWS": N_ROWS, "N_PAIRS": 1024, "N_FFT": 5120}
NUMBERS = {"numbers": "*fp64", "sums": "*fp64"}

#: name -> types of the pointers and numbers, values of the rest
KERNELS = {
    "project.resample": (
        {"ring": "*fp16", "numbers": "*fp64", "lines": "*fp32", "row": "i32"},
        {"N": N, "PITCH": PITCH, "LENGTH": 2 * N + 8, "BLOCK": 256},
    ),
    "project.add_lines": (
        NUMBERS | {"lines": "*fp32"},
        {"N": N, "LENGTH": 2 * N + 8, "ORIGIN": N // 2, "STEEP": True, "ROWS": 8, "COLS": 512,
         "UNROLL": 4},
    ),
    "project.add_vertical": (
        NUMBERS | {"ring": "*fp16", "plane": "*fp64"},
        {"N": N, "PITCH": PITCH, "N_ROWS": N_ROWS, "POINTS": 16, "ROWS": 256, "UNROLL": 4},
    ),
    "project.add_tilted": (
        NUMBERS | {"ring": "*fp16", "plane": "*fp64", "z0": "*i32", "lower": "*fp32",
                   "upper": "*fp32"},
        {"N": N, "PITCH": PITCH, "N_ROWS": N_ROWS, "ORIGIN": N // 2, "XS": 16, "YS": 32},
    ),
    "filter.log_transmission": (
        {"raw": "*i16", "slots": "*i64", "offset": "*fp32", "gain": "*fp32", "values": "*fp32",
         "n_bad": "*i32", "n_lost": "*i32"},
        FRAMES | {"UNSIGNED": 16, "DEZINGER": 2, "MARK": True, "BLOCK": 512},
    ),
    "filter.bridge": ({"values": "*fp32", "n_bad": "*i32"}, FRAMES | {"BLOCK": 4096}),
    "filter.multiply": (
        {"spectrum": "*fp32", "response": "*fp32", "n_rows": "i32"},
        {"N_FFT": 5120, "ROWS": 8, "BLOCK": 1024},
    ),
    "filter.store": (
        {"values": "*fp32", "places": "*i64", "ring": "*fp16"},
        FRAMES | {"PITCH": PITCH, "PAIRS": 32, "COLS": 32},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", KERNELS)
def test_kernel_compiles_for_compute_capability_9(name):
    triton: Any = importlib.import_module("triton")
    compiler: Any = importlib.import_module("triton.backends.compiler")
    source: Any = importlib.import_module("triton.compiler").ASTSource
    module, function = name.split(".")
    kernel = getattr(importlib.import_module(f"tomostream_ioc.recon.gpu.{module}"), function)
    types, constants = KERNELS[name]
    names = kernel.arg_names
    assert set(names) == {*types, *constants}
    signature = {n: types.get(n, "constexpr") for n in names}
    aligned = {(i,): [["tt.divisibility", 16]] for i, n in enumerate(names) if n in types}
    if "row" in names:
        del aligned[(names.index("row"),)]
    values = {(names.index(n),): value for n, value in constants.items()}
    compiled = triton.compile(
        source(fn=kernel, signature=signature, constexprs=values, attrs=aligned),
        target=compiler.GPUTarget("cuda", 90, 32),
    )
    assert "sm_90" in compiled.asm["ptx"]
    if function == "add_vertical":  # 16 bytes at a time, or the ring is read at half the speed
        assert "ld.global.v4.b32" in compiled.asm["ptx"]
    assert len(compiled.asm["cubin"]) > 1000
