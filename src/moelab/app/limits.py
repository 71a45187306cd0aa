"""Limits on what a visitor's file may cost: processor time and memory of the process that reads it."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from moelab.errors import MoelabError

try:
    import resource
except ImportError:  # Windows has no such limits
    resource = None  # type: ignore[assignment]

READ_SECONDS, FIT_SECONDS = 20, 600
"""Seconds of processor time to read a table, and to fit laws to one."""
MOST_MEMORY = 2_000_000_000
"""Bytes that reading or fitting a table may take beyond what its process holds."""


def limited(seconds: int, function: Callable[..., Any], *arguments: Any) -> Any:
    """function(*arguments) in a process of its own that ends where it takes more processor time than `seconds`.

    Raises MoelabError where it takes more than `MOST_MEMORY`; some libraries end the process then.
    """
    with _limits(seconds):
        try:
            return function(*arguments)
        except MemoryError:
            raise MoelabError(f"file: takes more than {MOST_MEMORY // 10**9} GB of memory here") from None


@contextmanager
def _limits(seconds: int) -> Iterator[None]:
    """Soft limits for the block; nothing where the system has none."""
    if resource is None:
        yield
        return
    cpu, data = resource.getrlimit(resource.RLIMIT_CPU), resource.getrlimit(resource.RLIMIT_DATA)
    held = _held()
    try:
        _lower(resource.RLIMIT_CPU, math.ceil(time.process_time()) + seconds)
        if held is not None:
            _lower(resource.RLIMIT_DATA, held + MOST_MEMORY)
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_CPU, cpu)
        resource.setrlimit(resource.RLIMIT_DATA, data)


def _lower(kind: int, most: int) -> None:
    soft, hard = resource.getrlimit(kind)
    ends = [end for end in (soft, hard, most) if end != resource.RLIM_INFINITY]
    resource.setrlimit(kind, (min(ends), hard))


def _held() -> int | None:
    """Bytes of data that this process holds now; None where the system does not give them."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmData:")), None)
