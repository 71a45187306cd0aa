"""How long work reports what it is doing: a callable, none by default, drawn with rich on the command line."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from moelab.printable import printable

Report = Callable[[str, int, int], None]
"""Called as `report(stage, done, total)`; total 0 means unknown. Called often: keep it cheap."""


def no_report(stage: str, done: int, total: int) -> None:
    """Report nothing."""


@contextmanager
def rich_report() -> Iterator[Report]:
    """Draw one bar per stage on stderr; on something that is no terminal, print one line per stage."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
    from rich.text import Text

    console = Console(stderr=True, highlight=False)
    columns = (TextColumn("{task.description:<34}", markup=False), BarColumn(), TextColumn("{task.percentage:>3.0f}%"))
    with Progress(*columns, TimeElapsedColumn(), console=console, disable=not console.is_terminal) as bars:
        tasks: dict[str, TaskID] = {}

        def report(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(printable(stage), total=total or None)
                if not console.is_terminal:
                    console.print(Text(f"{printable(stage)} ..."))
            bars.update(tasks[stage], completed=done, total=total or None)

        yield report
