"""The machine that a process runs on."""

import os


def usable_cores() -> int:
    """The processor cores that this process may use: those of its affinity where the system has one, else all."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
