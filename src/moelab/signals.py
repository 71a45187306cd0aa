"""Ctrl-C while processes start: theirs to ignore, ours to answer."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from typing import Any


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Processes started within this block never see Ctrl-C; in this one it is answered at the block's end.

    A terminal sends it to all processes of a command. One that has just begun to import would print a traceback, before
    it could choose to ignore it: the mask that it inherits keeps the signal from it, from its first instruction on.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # it would lift the mask where it starts within the block
    with _answered_later():
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _answered_later() -> Iterator[None]:
    """The mask is that of one thread: where another takes the signal, Python would still answer it in the main one."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    held: list[int] = []
    before: Any = signal.signal(signal.SIGINT, lambda number, _: held.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before if before is not None else signal.SIG_DFL)
        if held:
            signal.raise_signal(signal.SIGINT)
