"""Memory that a training process keeps."""

import subprocess
import sys

import pytest

STEPS = """
import resource, sys
from contextlib import nullcontext
import torch
from moelab.training.memory import freed_memory_kept
def step():
    torch.empty(12_000_000).fill_(1.0)
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    step()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096
with freed_memory_kept() if sys.argv[1] == "keep" else nullcontext():
    fewest, inside = min(faults() for _ in range(6)), resident()
print(fewest, inside, resident())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc can be asked to keep memory")
def test_a_freed_buffer_is_used_again_and_given_back_at_the_end() -> None:
    (fresh, *_), (kept, inside, after) = (
        map(
            int,
            subprocess.run(
                [sys.executable, "-c", STEPS, how], check=True, capture_output=True, text=True
            ).stdout.split(),
        )
        for how in ("default", "keep")
    )
    assert 10 * kept < fresh
    assert after < inside - 40e6
