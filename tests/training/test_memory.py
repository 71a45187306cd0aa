"""Memory that a training process keeps."""

import subprocess
import sys

import pytest

STEPS = """
import ctypes
import resource
from moelab.machine import freed_memory_kept
library = ctypes.CDLL(None)
def step():
    # As PyTorch allocates a tensor on a CPU: aligned to 64 bytes.
    place = ctypes.c_void_p()
    assert library.posix_memalign(ctypes.byref(place), ctypes.c_size_t(64), ctypes.c_size_t(48_000_000)) == 0
    ctypes.memset(place, 1, 48_000_000)
    library.free(place)
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    step()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()
usual = min(faults() for _ in range(3))
with freed_memory_kept():
    # The C library may set the odd bytes before each of the first seven aligned buffers aside; then it uses them again.
    kept, inside = min(faults() for _ in range(10)), resident()
print(usual, kept, inside, resident())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc can be asked to keep memory")
def test_a_freed_buffer_is_used_again_and_given_back_at_the_end() -> None:
    # A process of its own: fewest page faults of a step as usual and in the block, resident bytes in it and after it.
    shown = subprocess.run([sys.executable, "-c", STEPS], check=True, capture_output=True, text=True).stdout
    usual, kept, inside, after = (int(number) for number in shown.split())
    assert 10 * kept < usual
    assert after < inside - 40e6
