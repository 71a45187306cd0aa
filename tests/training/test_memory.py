"""Memory that a training process keeps."""

import subprocess
import sys

import pytest

STEPS = """
import resource, sys
import torch
from moelab.training.memory import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
def step():
    torch.empty(12_000_000).fill_(1.0)
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    step()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(min(faults() for _ in range(6)))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc is told what to keep")
def test_a_freed_buffer_is_used_again() -> None:
    fresh, kept = (
        int(subprocess.run([sys.executable, "-c", STEPS, how], check=True, capture_output=True, text=True).stdout)
        for how in ("default", "keep")
    )
    assert 10 * kept < fresh
