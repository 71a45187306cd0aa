"""Triton kernels: equal to their references in the interpreter, and compiled for a Hopper GPU without one."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from moelab.model import kernels

SCRIPT = Path(__file__).with_name("kernel_cases.py")
LIMITS = {"float32": 1e-6, "bfloat16": 8e-3}
"""The interpreter cuts bf16 off where a GPU rounds: one part in 2^7, half of it on average."""


def test_a_cpu_runs_no_kernels() -> None:
    assert not kernels.usable(torch.zeros(2))
    assert kernels.usable() == kernels.AVAILABLE


@pytest.mark.slow
def test_equal_to_the_references_on_odd_shapes() -> None:
    pytest.importorskip("triton", reason="Triton is not installed: pip install 'moelab[kernels]'")
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, str(SCRIPT)], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(rows) == 24
    for row in rows:
        for name, error in row["errors"].items():
            exact = name in ("loss", "log_z", "d_gates", "place", "ends", "sorted gates") or row["dtype"] == "float32"
            assert error <= (1e-6 if exact else LIMITS["bfloat16"]), (row["case"], row["dtype"], name, error)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:TRITON_DEFAULT_FP_FUSION")  # 3.9 announces another default
@pytest.mark.parametrize("dtype", ["*bf16", "*fp32"])
def test_they_compile_for_hopper(dtype: str) -> None:
    triton = pytest.importorskip("triton", reason="Triton is not installed: pip install 'moelab[kernels]'")
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from moelab.model.kernels import gating, places, rotary, rows, softmax

    wide, index, number, fixed = "*fp32", "*i64", "i32", "constexpr"
    moved = {"D": number, "K": fixed, "BLOCK": fixed}
    tile = {"R": number, "F": number, "ROWS": fixed, "BLOCK": fixed}
    slopes = {"d_out": dtype, "h": dtype, "gates": wide, "d_h": dtype, "out": dtype, "d_gates": wide}
    logits = {"logits": dtype, "targets": index, "losses": wide, "log_z": wide, "V": number}
    turned = {"weight": wide, "cos": wide, "sin": wide}
    heads = {"T": number, "H": number, "HALF": number, "eps": "fp32"}
    tiles = {"NORM": fixed, "HS": fixed, "AS": fixed}
    slots = {"counts": "*i32", "ends": "*i32", "place": "*i32", "sorted_gates": wide}
    cases: list[tuple[Any, dict[str, str], dict[str, Any]]] = [
        (rows.spread_kernel, {"x": dtype, "place": index, "out": dtype, **moved}, {"K": 8, "BLOCK": 1024}),
        (rows.combine_kernel, {"y": dtype, "place": index, "out": dtype, **moved}, {"K": 8, "BLOCK": 1024}),
        (gating.gate_kernel, {"h": dtype, "gates": wide, "out": dtype, **tile}, {"ROWS": 4, "BLOCK": 512}),
        (gating.gate_backward_kernel, {**slopes, **tile}, {"ROWS": 4, "BLOCK": 512}),
        (
            rotary.rotary_kernel,
            {"x": dtype, **turned, "out": dtype, **heads, "NORM": fixed, "BACK": fixed, "HS": fixed, "AS": fixed},
            {"NORM": 2, "BACK": False, "HS": 16, "AS": 32},
        ),
        *(
            (
                rotary.rotary_norm_backward_kernel,
                {"d_out": dtype, "x": dtype, **turned, "d_x": dtype, "d_weight": wide, "N": number, **heads}
                | {"ROWS": fixed, **tiles},
                {"ROWS": 16, "NORM": norm, "HS": 16, "AS": 32},
            )
            for norm in (1, 2)
        ),
        (
            places.count_kernel,
            {"chosen": index, "counts": "*i32", "R": number, "E": number, "BLOCKS": number}
            | {"BLOCK": fixed, "CHUNK": fixed},
            {"BLOCK": 128, "CHUNK": 64},
        ),
        (
            places.place_kernel,
            {"chosen": index, "gates": wide, **slots, "R": number, "BLOCKS": number, "BLOCK": fixed},
            {"BLOCK": 128},
        ),
        (
            softmax.cross_entropy_kernel,
            {**logits, "IGNORED": fixed, "BLOCK": fixed, "WRITE": fixed},
            {"IGNORED": -100, "BLOCK": 8192, "WRITE": True},
        ),
    ]
    for kernel, signature, constants in cases:
        source = ASTSource(fn=kernel, signature=signature, constexprs=constants)
        compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": 4})
        assert compiled.asm["cubin"], kernel
