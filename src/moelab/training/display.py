"""A live line for one run: progress, loss, tokens per second, time left."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from moelab.printable import printable
from moelab.runs import RunConfig
from moelab.training.monitor import Watcher


@contextmanager
def follow(config: RunConfig, quiet: bool = False) -> Iterator[Watcher | None]:
    """A context whose value `train_run` takes as `watch`; None when quiet. Drawn on stderr."""
    if quiet:
        yield None
        return
    bar = _Bar(config)
    try:
        yield bar.watch
        bar.fill()
    finally:
        bar.close()


class _Bar:
    """A progress bar that appears with the first numbers, so that a run refused at once draws none."""

    def __init__(self, config: RunConfig) -> None:
        self.name, self.steps = printable(config.name or config.run_id), config.train.steps
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.completed:.0f}/{task.total:.0f} steps"),
            TextColumn("{task.fields[numbers]}", markup=False),
            TimeRemainingColumn(),
        )
        self.progress = Progress(*columns, console=Console(stderr=True))
        self.task: TaskID | None = None

    def watch(self, numbers: dict[str, float]) -> None:
        if self.task is None:
            self.progress.start()
            self.task = self.progress.add_task(self.name, total=self.steps, numbers="")
        text = f"loss {numbers['loss']:.3f}  {numbers['tokens_per_second']:,.0f} tokens/s"
        self.progress.update(self.task, completed=numbers["step"], numbers=text)

    def fill(self) -> None:
        if self.task is not None:
            self.progress.update(self.task, completed=self.steps)

    def close(self) -> None:
        if self.task is not None:
            self.progress.stop()
