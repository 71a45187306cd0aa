"""The machine that a process runs on."""

import os


def machine_memory() -> float | None:
    """Bytes of memory of this machine; None where the system does not report it."""
    try:
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, ValueError, OSError):
        return None


def usable_cores() -> int:
    """The processor cores that this process may use: those of its affinity where the system has one, else all."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
