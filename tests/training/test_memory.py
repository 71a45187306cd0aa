"""Memory that a training process keeps."""

import subprocess
import sys

import pytest

STEPS = """
import resource, sys
from contextlib import nullcontext
import torch
from moelab.machine import freed_memory_kept
def step():
    torch.empty(12_000_000).fill_(1.0)
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    step()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()
with freed_memory_kept() if sys.argv[1] == "keep" else nullcontext():
    fewest, inside = min(faults() for _ in range(6)), resident()
print(fewest, inside, resident())
"""


def measured(how: str) -> list[int]:
    """Of a process of its own: the fewest page faults of a step, the bytes resident inside the block and after it."""
    shown = subprocess.run([sys.executable, "-c", STEPS, how], check=True, capture_output=True, text=True).stdout
    return [int(number) for number in shown.split()]


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc can be asked to keep memory")
def test_a_freed_buffer_is_used_again_and_given_back_at_the_end() -> None:
    fresh, *_ = measured("default")
    # Where the system puts the heap is drawn anew for each process, and beside another mapping it cannot grow.
    tries = [measured("keep")]
    while len(tries) < 4 and not 10 * tries[-1][0] < fresh:
        tries.append(measured("keep"))
    kept, inside, after = tries[-1]
    assert 10 * kept < fresh, tries
    assert after < inside - 40e6
