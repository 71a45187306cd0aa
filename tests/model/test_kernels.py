"""Triton kernels: equal to their references in the interpreter, and compiled for GPUs without one."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from moelab.model import kernels

SCRIPT = Path(__file__).with_name("kernel_cases.py")
LAUNCHES = Path(__file__).with_name("kernel_launches.py")
DTYPES = {90: ["bfloat16", "float32"], 80: ["bfloat16"], 100: ["bfloat16"]}
"""By compute capability: Hopper whole, Ampere and Blackwell in the dtype that is trained in."""
SHARED_MEMORY = {80: 163 * 1024, 90: 227 * 1024, 100: 227 * 1024}
"""Bytes that one program may take (CUDA C++ Programming Guide, technical specifications per compute capability)."""
REGISTERS = 65536
"""What a multiprocessor has (the same table); a program's threads must find room at once."""
SPILLS = ("rotary_norm_backward_kernel",)
"""A norm over all of 128 heads of 128: a program holds 8,192 pairs and spills some. With 64 heads none do."""
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
    assert len(rows) == 26
    for row in rows:
        for name, error in row["errors"].items():
            exact = name in ("loss", "log_z", "d_gates", "place", "ends", "sorted gates") or row["dtype"] == "float32"
            assert error <= (1e-6 if exact else LIMITS["bfloat16"]), (row["case"], row["dtype"], name, error)


@pytest.mark.slow
@pytest.mark.parametrize("capability", DTYPES)
def test_every_launch_compiles_and_fits_the_gpu(capability: int, tmp_path: Path) -> None:
    """All kernels in all shapes that models have, by the installed version of Triton, without a GPU: a program's
    shared memory and registers are there, and registers spill in the one kernel that is known for it."""
    pytest.importorskip("triton", reason="Triton is not installed: pip install 'moelab[kernels]'")
    path, dtypes = os.pathsep.join(filter(None, sys.path)), DTYPES[capability]
    environment = {**os.environ, "TRITON_CACHE_DIR": str(tmp_path), "PYTHONPATH": path}
    environment.pop("TRITON_INTERPRET", None)
    command = [sys.executable, str(LAUNCHES), str(capability), *dtypes]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert {row["kernel"] for row in rows} == kernel_names()
    assert {row["dtype"] for row in rows} == {*dtypes, "int64"}
    largest, spilled = max(row["shared"] for row in rows), [row for row in rows if row["stack"]]
    print(f"Triton {rows[0]['triton']}, sm_{capability}: {len(rows)} programs, up to {largest} bytes of shared memory")
    for row in spilled:
        print(f"registers spill to {row['stack']} bytes: {row['kernel']} {row['dtype']} {row['sizes']}")
    for row in rows:
        assert row["shared"] <= SHARED_MEMORY[capability], row
        assert row["registers"] * row["threads"] <= REGISTERS, row
    assert all(row["kernel"] in SPILLS and row["heads"] == 128 for row in spilled)


def kernel_names() -> set[str]:
    """All kernels of the package."""
    folder = Path(kernels.__file__).parent
    return {name for file in folder.glob("*.py") for name in re.findall(r"@triton\.jit\ndef (\w+)", file.read_text())}
