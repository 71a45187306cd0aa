"""Memory that a training process keeps."""

import subprocess
import sys

import pytest

STEPS = """
import resource
import torch
from moelab.training.memory import freed_memory_kept
def step():
    torch.empty(12_000_000).fill_(1.0)
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    step()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()
fresh = min(faults() for _ in range(3))
with freed_memory_kept():
    kept, inside = min(faults() for _ in range(3)), resident()
print(fresh, kept, inside, resident())
"""
"""Faults and bytes of a process of its own: what other tests freed and kept would show."""


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc can be asked to keep memory")
def test_a_freed_buffer_is_used_again_and_given_back_at_the_end() -> None:
    shown = subprocess.run([sys.executable, "-c", STEPS], check=True, capture_output=True, text=True).stdout
    fresh, kept, inside, after = map(int, shown.split())
    assert 10 * kept < fresh
    assert after < inside - 40e6
