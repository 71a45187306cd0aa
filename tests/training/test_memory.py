"""Memory that a training process keeps."""

import resource
import sys
from pathlib import Path

import pytest
import torch

from moelab.training.memory import freed_memory_kept


def faults() -> int:
    """Pages that this thread got anew for a buffer of 48 MB, which is freed again."""
    before = resource.getrusage(resource.RUSAGE_THREAD).ru_minflt
    torch.empty(12_000_000).fill_(1.0)
    return resource.getrusage(resource.RUSAGE_THREAD).ru_minflt - before


def resident() -> int:
    """Bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc can be asked to keep memory")
def test_a_freed_buffer_is_used_again_and_given_back_at_the_end() -> None:
    fresh = min(faults() for _ in range(3))
    with freed_memory_kept():
        kept, inside = min(faults() for _ in range(3)), resident()
    assert 10 * kept < fresh
    assert resident() < inside - 40e6
