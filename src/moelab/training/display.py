"""A live line for one run: progress, loss, tokens per second, time left."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from moelab.runs import RunConfig
from moelab.training.trainer import Watcher


@contextmanager
def follow(config: RunConfig, quiet: bool = False) -> Iterator[Watcher | None]:
    """A context whose value `train_run` takes as `watch`; None when quiet. Drawn on stderr."""
    if quiet:
        yield None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:.0f}/{task.total:.0f} steps"),
        TextColumn("{task.fields[numbers]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(config.name or config.run_id, total=config.train.steps, numbers="")

        def watch(numbers: dict[str, float]) -> None:
            text = f"loss {numbers['loss']:.3f}  {numbers['tokens_per_second']:,.0f} tokens/s"
            progress.update(task, completed=numbers["step"], numbers=text)

        yield watch
        progress.update(task, completed=config.train.steps)
