"""Runs of a second's fraction, and workers that are threads, so that a whole study takes a second."""

import copy
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from moelab.data import Dataset
from moelab.executors import End, ExecutorConfig, Order, collect, work
from moelab.runs import RunConfig
from moelab.studies import StudyConfig, build_runs

Act = Callable[[Order, str], dict[str, str]]


@pytest.fixture(scope="session")
def dataset(tiny_dataset: Dataset) -> Dataset:
    """The tiny data set, which `a_run` and `make_run` train on."""
    return tiny_dataset


@pytest.fixture
def a_run(make_run: Callable[..., RunConfig]) -> Callable[..., RunConfig]:
    """Like `make_run`, of one layer, width 8 and eight steps."""

    def make(model: dict[str, Any] | None = None, **train: Any) -> RunConfig:
        shape = {"d_model": 8, "n_layers": 1, "n_heads": 1, "d_ff": 16, **(model or {})}
        return make_run(shape, **{"tokens": 512, "eval_tokens": 64, "evaluations": 1, **train})

    return make


class Threads:
    """A pool of threads; `act` is what a worker does, its exception is the worker's death."""

    def __init__(self, order: Order, act: Act) -> None:
        self.order, self.act = order, act
        self.ends: list[End] = []
        self.started: list[str] = []
        self.at_work: set[str] = set()

    def start(self, worker: str) -> None:
        self.started.append(worker)
        self.at_work.add(worker)
        threading.Thread(target=self._run, args=(worker,)).start()

    def _run(self, worker: str) -> None:
        try:
            end = End(worker=worker, failures=self.act(self.order, worker))
        except Exception as error:
            end = End(worker=worker, failures={}, death=str(error))
        self.ends.append(end)

    def ended(self) -> list[End]:
        gone, self.ends = self.ends, []
        self.at_work -= {end.worker for end in gone}
        return gone

    def close(self) -> None:
        pass


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """From the call on, the executor `local` has threads as workers, which do `act` in place of real work."""

    def use(act: Act = work) -> None:
        @contextmanager
        def open_pool(order: Order, options: ExecutorConfig) -> Iterator[Threads]:
            yield Threads(order, act)

        monkeypatch.setattr(collect, "POLL_SECONDS", 0.02)
        monkeypatch.setitem(collect._OPEN, "local", open_pool)

    return use


BASE: dict[str, Any] = {
    "model": {"vocab_size": 512, "d_model": 32, "n_layers": 2, "n_heads": 4, "d_ff": 96},
    "train": {"tokens": 400_000, "seq_len": 128, "batch_tokens": 1024, "learning_rate": 0.02},
}


@pytest.fixture
def base() -> dict[str, Any]:
    """The base of the studies that `plan` plans: two dense layers of width 32, 390 steps."""
    return copy.deepcopy(BASE)


@pytest.fixture(scope="session")
def plan() -> Callable[..., list[RunConfig]]:
    """A function of entries and of changes to the rest of a study that returns its runs, nothing trained."""

    def make(*entries: dict[str, Any], base: dict[str, Any] | None = None, **changes: Any) -> list[RunConfig]:
        whole = {"name": "s", "title": "t", "data": {"sources": ["texts"]}, "base": base or BASE}
        study = StudyConfig.parse({**whole, "runs": list(entries), **changes})
        return build_runs(study, study.runs, "data", {})

    return make
