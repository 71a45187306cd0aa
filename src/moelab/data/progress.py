"""How long work reports what it is doing: a callable, none by default, drawn with rich on the command line."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from moelab.printable import printable

SECONDS = 30.0
"""Between the lines that show how far a stage is, where there is no terminal."""
Report = Callable[[str, int, int], None]
"""Called as `report(stage, done, total)`; total 0 means unknown. Called often: keep it cheap."""


def no_report(stage: str, done: int, total: int) -> None:
    """Report nothing."""


@contextmanager
def rich_report() -> Iterator[Report]:
    """Draw one bar per stage on stderr; on something that is no terminal, print one line per stage, and one
    for every half minute that it takes."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
    from rich.text import Text

    console = Console(stderr=True, highlight=False)
    columns = (TextColumn("{task.description:<34}", markup=False), BarColumn(), TextColumn("{task.percentage:>3.0f}%"))
    with Progress(*columns, TimeElapsedColumn(), console=console, disable=not console.is_terminal) as bars:
        tasks: dict[str, TaskID] = {}
        shown = time.monotonic()

        def report(stage: str, done: int, total: int) -> None:
            nonlocal shown
            if stage not in tasks:
                tasks[stage] = bars.add_task(printable(stage), total=total or None)
                if not console.is_terminal:
                    console.print(Text(f"{printable(stage)} ..."))
                    shown = time.monotonic()
            elif not console.is_terminal and time.monotonic() - shown >= SECONDS:
                shown = time.monotonic()
                console.print(Text(f"{printable(stage)} ... {f'{done / total:.0%}' if total else f'{done:,}'}"))
            bars.update(tasks[stage], completed=done, total=total or None)

        yield report
