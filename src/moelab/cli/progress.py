"""Progress on stderr for work of unknown length: a bar once it has taken two seconds, lines where no terminal is."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

AFTER, BETWEEN = 2.0, 30.0
"""Seconds without a bar, and between two lines."""


@contextmanager
def share_done(
    name: str, quiet: bool = False, clock: Callable[[], float] = time.monotonic
) -> Iterator[Callable[[float], None]]:
    """A context whose value takes the share of the work that is done, 0 to 1, again and again.

    On something that is no terminal, such as a file, a line of text stands for every half minute.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    console = Console(stderr=True, highlight=False)
    columns = (TextColumn(name, markup=False), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=console)
    task = bar.add_task(name, total=1.0)
    shown, drawn = clock(), False

    def update(share: float) -> None:
        nonlocal drawn, shown
        if quiet or drawn:
            bar.update(task, completed=share)
        elif console.is_terminal and clock() - shown > AFTER:
            bar.start()
            drawn = True
        elif not console.is_terminal and clock() - shown > BETWEEN:
            console.print(f"{name} ... {share:.0%}", markup=False)
            shown = clock()

    try:
        yield update
    finally:
        if drawn:
            bar.stop()
