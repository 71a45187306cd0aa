"""Fixtures for several rooms: designs and coefficients for every law, published tables, a tiny text and runs on it."""

import gc
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

# Tests are many small computations: threads of their own only get in each other's way, and threads that wait must not
# spin. The libraries read this when they are imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("POLARS_MAX_THREADS", "1")

import hypothesis
import numpy as np
import pytest

from moelab.laws import Law

if "PYTEST_XDIST_WORKER" in os.environ:
    # The controlling process's line editor puts a terminal's size into the environment of its children.
    os.environ.pop("COLUMNS", None)
    os.environ.pop("LINES", None)

# Nothing that is imported and collected becomes garbage: the collector need not look for any until then.
gc.disable()

hypothesis.settings.register_profile("few", max_examples=12, deadline=None)
hypothesis.settings.register_profile("full", max_examples=100, deadline=None)
hypothesis.settings.load_profile("few")

CHARACTERS = hypothesis.strategies.characters(exclude_categories=["Cs"])
"""The alphabet of `st.text()`, all but surrogates: by category it is known at once, by encoding it is tried out."""


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """In a fresh checkout one process collects before the others: it compiles what all of them import."""
    import fcntl

    compiled = list(Path(__file__).parent.glob("__pycache__/test_*.pyc"))
    if compiled or sys.dont_write_bytecode or "PYTEST_XDIST_WORKER" not in os.environ:
        return (yield)
    with open(__file__, encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return (yield)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """As many test processes as this process may use cores."""
    from moelab.machine import usable_cores

    return usable_cores()


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """What was imported and collected stays: the collector of garbage need not walk through it again and again."""
    gc.freeze()
    gc.enable()
    gc.set_threshold(20_000, 20, 50)


DIST_SECONDS = 600
"""What the tests that start several processes may take together; a run that has any prints what they took."""


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """The seconds of the tests marked `dist`, with what their fixtures took, beside what they may take."""
    reports = [report for found in terminalreporter.stats.values() for report in found]
    ours = [each for each in reports if hasattr(each, "duration") and "dist" in each.keywords]
    if ours:
        seconds = sum(report.duration for report in ours)
        names = {report.nodeid for report in ours}
        terminalreporter.write_line(
            f"dist: {len(names)} tests in {seconds:.0f} s, of {DIST_SECONDS} s that they may take"
        )


FORMS: dict[str, dict[str, float]] = {
    "yun2024": {
        "A": 50.0, "alpha": 0.2, "B": 0.5, "beta": 0.5, "C": 100.0, "gamma": 0.2, "d": -0.001,
        "E_start": 1.5, "E_max": 300.0, "E_0": 1.2,
    },
    "wang2024": {"A": 100.0, "alpha": 0.25, "gamma": 0.1, "B": 400.0, "beta": 0.28, "E_0": 1.7},
    "clark2022-bilinear": {"a": -0.08, "b": -0.1, "c": 0.01, "d": 1.1},
    "clark2022-separable": {"a": -0.08, "b": -0.03, "d": 1.1},
    "moelab2026": {
        "E_0": 1.4, "A": 30.0, "alpha": 0.19, "B": 50.0, "beta": 0.18, "kappa_0": 0.4, "kappa_1": -0.05, "mu_0": 0.1,
        "mu_1": 0.02, "E_start": 2.0, "E_max": 300.0, "g": 0.11, "gamma": 0.58, "sigma_1": -0.3, "sigma_2": 0.5,
        "R_D": 15.0, "R_N": 5.0, "rho": 0.1,
    },
}  # fmt: skip
FORMS["moelab2026-outer"] = {**FORMS["moelab2026"], "k": 0.7}
"""Plausible coefficients of our own for laws that ship without: only for trying the formulas."""


def some_coefficients(law: Law) -> dict[str, float]:
    """The published coefficients, or ours where there are none."""
    return dict(law.published or FORMS[law.id.removesuffix("+reuse")])


def some_variables(n: int = 60, seed: int = 0) -> dict[str, Any]:
    """n random designs with every variable any law asks for."""
    rng = np.random.default_rng(seed)
    params = np.exp(rng.uniform(np.log(2e7), np.log(5e9), n))
    tokens = params * np.exp(rng.uniform(np.log(3), np.log(300), n))
    return {
        **dict.fromkeys(
            ("params_total", "params_non_embedding", "params_active_non_embedding", "params_dense", "params_nonzero"),
            params,
        ),
        "params_active": params * rng.uniform(0.1, 1, n),
        "tokens": tokens,
        "unique_tokens": tokens * rng.uniform(0.02, 1, n),
        "granularity": 2.0 ** rng.integers(0, 6, n),
        "sparsity": rng.choice([0, 0.5, 0.75, 0.9, 0.95], n),
        "expert_ratio": 2.0 ** rng.integers(0, 7, n),
        "n_experts": 2.0 ** rng.integers(0, 6, n),
        "expert_activation": rng.uniform(0.01, 1, n),
        "granularity_ling": rng.uniform(2, 16, n),
        "train_flops": 10 ** rng.uniform(18, 21, n),
        "active_experts": rng.uniform(1, 16, n),
        "shared_share": rng.uniform(0, 0.6, n),
        "weight_sparsity": rng.uniform(0, 0.9, n),
    }


@pytest.fixture(scope="session")
def coefficients_of() -> Callable[[Law], dict[str, float]]:
    return some_coefficients


@pytest.fixture(scope="session")
def variables_of() -> Callable[..., dict[str, Any]]:
    return some_variables


@pytest.fixture(scope="session", autouse=True)
def _no_waiting_for_disks() -> Iterator[None]:
    """No test cuts the power, so none waits until its files would survive that."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)
        yield


@pytest.fixture(scope="module")
def pages_without_library() -> Iterator[None]:
    """Pages of this module carry no library of charts, which takes two seconds to build; tests/report looks at it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("moelab.report.page.chart_library", lambda: "window.vegaEmbed = null;")
        yield


@pytest.fixture
def small_disk() -> Callable[[int], AbstractContextManager[None]]:
    """A context of bytes beyond which no file can grow, as on a full disk. It ends before the test does: pytest writes
    its own output to a file too, where that is redirected."""
    import resource

    @contextmanager
    def limited(most: int) -> Iterator[None]:
        old = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, old[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, old)

    return limited


@pytest.fixture
def published_runs() -> Path:
    """The folder of published tables of runs, named by MOELAB_PUBLISHED_RUNS."""
    folder = os.environ.get("MOELAB_PUBLISHED_RUNS")
    if not folder or not Path(folder).is_dir():
        pytest.skip("MOELAB_PUBLISHED_RUNS names no folder of published runs")
    return Path(folder)


TEXT = "the cat sat on a mat while two dogs ran past seven tall trees and over an old wall"
WORDS = TEXT.split(" ")


def write_documents(folder: Path, count: int = 60, words: int = 120) -> Path:
    """So many different documents of a small grammar, learnable in a few steps; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        text = " ".join(WORDS[(index * 7 + i * i) % len(WORDS)] for i in range(words))
        (folder / f"{index:03d}.txt").write_text(text)
    return folder


@pytest.fixture(scope="session")
def write_texts() -> Callable[..., Path]:
    """`write_documents`: a function of a folder, the number of documents and their words."""
    return write_documents


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """How the tiny data set is prepared: sixty documents of a small grammar, vocabulary 300."""
    texts = write_documents(tmp_path_factory.mktemp("texts"))
    return {"sources": [str(texts)], "vocab_size": 300, "validation_share": 0.2}


@pytest.fixture(scope="session")
def tiny_dataset(tiny_data: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The tiny data set, prepared. Read only."""
    from moelab.data import PrepareConfig
    from moelab.data.prepare import prepare

    return prepare(PrepareConfig.parse(tiny_data), tmp_path_factory.mktemp("prepared") / "data").dataset


@pytest.fixture(scope="session")
def make_runs(tiny_dataset: Any) -> Callable[..., Any]:
    """A function of changes to `model` and `train` that returns a resolved tiny run on the tiny data set."""
    from moelab.runs import RunConfig
    from moelab.training import resolve_run

    shape = {"vocab_size": 300, "d_model": 16, "n_layers": 2, "n_heads": 2, "d_ff": 32}
    how = {"tokens": 40 * 64, "seq_len": 16, "batch_tokens": 64, "learning_rate": 0.02, "eval_tokens": 500}
    how |= {"evaluations": 2, "threads": 1, "precision": "fp32"}

    def make(model: dict[str, Any] | None = None, **train: Any) -> Any:
        data = {"path": str(tiny_dataset.folder)}
        config = {"model": {**shape, **(model or {})}, "data": data, "train": {**how, **train}}
        return resolve_run(RunConfig.parse(config), tiny_dataset)

    return make


@pytest.fixture
def make_run(make_runs: Callable[..., Any]) -> Callable[..., Any]:
    """`make_runs`, for a single test."""
    return make_runs


class Threads:
    """A pool of threads; `act` is what a worker does, its exception is the worker's death."""

    def __init__(self, order: Any, act: Callable[[Any, str], dict[str, str]]) -> None:
        self.order, self.act = order, act
        self.ends: list[Any] = []
        self.started: list[str] = []
        self.at_work: set[str] = set()

    def start(self, worker: str) -> None:
        self.started.append(worker)
        self.at_work.add(worker)
        threading.Thread(target=self._run, args=(worker,)).start()

    def _run(self, worker: str) -> None:
        from moelab.executors import End

        try:
            end = End(worker=worker, failures=self.act(self.order, worker))
        except Exception as error:
            end = End(worker=worker, failures={}, death=str(error))
        self.ends.append(end)

    def ended(self) -> list[Any]:
        gone, self.ends = self.ends, []
        self.at_work -= {end.worker for end in gone}
        return gone

    def close(self) -> None:
        pass


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """From the call on, the executor `local` has threads as workers, which do `act` in place of real work."""
    from moelab.executors import collect, work

    def use(act: Callable[[Any, str], dict[str, str]] = work) -> None:
        @contextmanager
        def open_pool(order: Any, options: Any) -> Iterator[Threads]:
            yield Threads(order, act)

        monkeypatch.setattr(collect, "POLL_SECONDS", 0.02)
        monkeypatch.setitem(collect._OPEN, "local", open_pool)

    return use
