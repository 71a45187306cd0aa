"""The compiled kernels write and read only what is theirs, and agree with PyTorch on shapes that fit no block."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from moelab.model.native import build, load, ops

SCRIPT = Path(__file__).with_name("native_shapes.py")


@pytest.mark.skipif(load()[0] is None, reason="no compiled kernels here")
@pytest.mark.parametrize(("length", "a"), [(1, 8), (2, 130), (16, 128), (32, 64), (49, 6)])
def test_heads_may_be_wider_than_the_sequence_is_long(length: int, a: int) -> None:
    q, k, v = (torch.randn(2, length, heads, a, requires_grad=True) for heads in (2, 1, 1))
    ours = ops.CausalAttention.apply(q, k, v)
    turned = [x.transpose(1, 2) for x in (q, k, v)]
    theirs = F.scaled_dot_product_attention(*turned, is_causal=True, enable_gqa=True).transpose(1, 2)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    slope = torch.randn_like(ours)
    for mine, other in zip(*(torch.autograd.grad(y, (q, k, v), slope) for y in (ours, theirs)), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_no_kernel_leaves_its_memory(tmp_path: Path, seed: int) -> None:
    compiler = shutil.which("gcc")
    if compiler is None or load()[0] is None:
        pytest.skip("needs gcc")
    found = subprocess.run([compiler, "-print-file-name=libasan.so"], capture_output=True, text=True, check=True)
    sanitizer, library = found.stdout.strip(), tmp_path / "kernels.so"
    if not Path(sanitizer).is_absolute():
        pytest.skip("gcc has no address sanitizer here")
    flags = ["-O1", "-g", "-fsanitize=address", "-fopenmp", *build._FLAGS[1:]]
    subprocess.run([compiler, *flags, "-o", str(library), str(build.SOURCE), "-lm"], check=True)
    environment = {**os.environ, "LD_PRELOAD": sanitizer, "ASAN_OPTIONS": "detect_leaks=0"}
    words = [sys.executable, str(SCRIPT), str(library), str(seed), "60"]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False, timeout=500)
    assert done.stdout.strip().endswith("held"), done.stderr[-3000:]
