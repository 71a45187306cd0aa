"""How fast a run would train on this machine: a few real steps of it, timed."""

import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from moelab.data import Dataset, PrepareConfig
from moelab.data.prepare import prepare
from moelab.errors import MoelabError
from moelab.executors.memory import free_memory, run_memory
from moelab.quantities import format_bytes
from moelab.runs import RunConfig, RunFolder

PROBE_SECONDS = 1.0
_WARM_STEPS, _FEWEST_STEPS, _MOST_STEPS = 2, 3, 200
_WORDS = 60_000


@contextmanager
def probe_text() -> Iterator[Dataset]:
    """A few hundred kilobytes of generated text, prepared: speed does not depend on the text."""
    with tempfile.TemporaryDirectory(prefix="moelab-probe-") as folder:
        words = [f"w{(index * index) % 997:x}" for index in range(_WORDS)]
        pieces = [" ".join(words[at : at + 500]) for at in range(0, _WORDS, 500)]
        texts = Path(folder) / "texts"
        texts.mkdir()
        for number, piece in enumerate(pieces):
            (texts / f"{number}.txt").write_text(f"{number} {piece}")
        config = PrepareConfig(sources=(str(texts),), vocab_size=257, validation_share=0.3)
        yield prepare(config, Path(folder) / "data").dataset


def tokens_per_second(config: RunConfig, text: Dataset, seconds: float = PROBE_SECONDS) -> float:
    """Training tokens per second of a run, alone on this machine: the median of its optimiser steps after two.

    Nothing is kept. Raises MoelabError where this machine cannot train it.
    """
    from moelab.machine import freed_memory_kept
    from moelab.training import Trainer, resolve_run
    from moelab.training.kernels import computed_by

    free, needed = free_memory(), run_memory(config)
    if free is not None and needed > free:
        raise MoelabError(f"it needs about {format_bytes(needed)} of memory, {format_bytes(free)} are free")
    train = {**config.train.to_dict(), "processes": 1, "tokens": _MOST_STEPS * config.train.batch_tokens}
    for name in ("transition", "keep_steps", "warmup_steps", "decay_steps"):
        train.pop(name, None)
    plain = {**config.to_dict(), "train": train, "data": {"path": str(text.folder)}}
    plain.pop("parent", None)
    resolved = resolve_run(RunConfig.parse(plain), text)
    with (
        tempfile.TemporaryDirectory(prefix="moelab-probe-") as folder,
        freed_memory_kept(),
        computed_by(resolved.train),
    ):
        trainer = Trainer(resolved, RunFolder(Path(folder)), text)
        for _ in range(_WARM_STEPS):
            trainer.step()
        times: list[float] = []
        while len(times) < _FEWEST_STEPS or (sum(times) < seconds and len(times) < _MOST_STEPS - _WARM_STEPS):
            started = time.perf_counter()
            trainer.step()
            times.append(time.perf_counter() - started)
    return config.train.batch_tokens / statistics.median(times)
