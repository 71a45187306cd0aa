"""A bar on stderr for work of unknown length: drawn once the work has taken two seconds."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

AFTER = 2.0
"""Seconds without a bar."""


@contextmanager
def share_done(
    name: str, quiet: bool = False, clock: Callable[[], float] = time.monotonic
) -> Iterator[Callable[[float], None]]:
    """A context whose value takes the share of the work that is done, 0 to 1, again and again."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (TextColumn(name, markup=False), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=Console(stderr=True))
    task = bar.add_task(name, total=1.0)
    began, drawn = clock(), False

    def update(share: float) -> None:
        nonlocal drawn
        if not drawn and not quiet and clock() - began > AFTER:
            bar.start()
            drawn = True
        bar.update(task, completed=share)

    try:
        yield update
    finally:
        if drawn:
            bar.stop()
