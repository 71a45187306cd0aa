"""Workers, leases and what is made of them: with threads as workers, so that a whole order takes a second."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from moelab.claim import Claim, content, find
from moelab.data import Dataset
from moelab.errors import InputError, MoelabError
from moelab.executors import Board, ExecutorConfig, Order, Outcome, run_all, work
from moelab.runs import RunConfig, RunFolder
from moelab.runs.folder import LEASE
from moelab.runs.record_table import runs_table
from moelab.training import resolve_run

QUICK = ExecutorConfig(patience=1.0, checkpoint_seconds=0.05)
Train = Callable[..., Outcome]
Make = Callable[..., RunConfig]


@pytest.fixture
def runs(a_run: Make) -> list[RunConfig]:
    return [a_run(seed=seed) for seed in range(4)]


@pytest.fixture
def train(threads: Callable[..., None], dataset: Dataset, tmp_path: Path) -> Train:
    """run_all with threads that do `act`."""

    def call(configs: list[RunConfig], act: Callable[[Order, str], dict[str, str]] = work, **options: Any) -> Outcome:
        threads(act)
        options = {"executor": QUICK, "workers": 2, **options}
        return run_all(configs, tmp_path / "runs", dataset.folder, **options)

    return call


def test_every_run_once_in_the_order_asked(train: Train, runs: list[RunConfig], tmp_path: Path) -> None:
    seen: list[Board] = []
    outcome = train([*runs, runs[0]], observe=seen.append)
    assert [config for config, _ in outcome.trained] == [*runs, runs[0]]
    assert outcome.failed == {}
    assert {record.resumed for _, record in outcome.trained} == {0}
    assert seen[-1].done_flops == pytest.approx(seen[-1].total_flops)
    assert len(seen[-1].finished) == seen[-1].total == 4
    assert not list(tmp_path.rglob(".lease*"))


@pytest.mark.parametrize(("order", "expected"), [("listed", [32, 16, 64]), (None, [64, 32, 16])])
def test_runs_begin_as_listed_or_with_the_most_expensive(
    train: Train, a_run: Make, order: Any, expected: list[int]
) -> None:
    runs = [a_run({"d_ff": width}) for width in (32, 16, 64)]
    begun: list[int] = []

    def note(order: Order, worker: str) -> dict[str, str]:
        begun.extend(config["model"]["d_ff"] for config in order.configs)
        return work(order, worker)

    train(runs, note, workers=1, executor=QUICK.model_copy(update={"order": order}))
    assert begun == expected


def test_finished_runs_start_no_workers(train: Train, runs: list[RunConfig]) -> None:
    first = train(runs)

    def nobody(order: Order, worker: str) -> dict[str, str]:
        raise AssertionError("a worker was started")

    assert train(runs, nobody).trained == first.trained


def test_a_failed_run_does_not_stop_the_others(
    train: Train, runs: list[RunConfig], a_run: Make, tmp_path: Path
) -> None:
    moe = {"n_experts": 4, "top_k": 2, "d_expert": 16, "router": "hash", "router_bias": True}
    bad = a_run(model={"moe": moe})
    wild = a_run(learning_rate=1e30, grad_clip=0)
    outcome = train([bad, wild, *runs])
    assert outcome.failed == {bad.run_id: "model: moelab counts but cannot train a router bias of the router hash"}
    assert [record.status for _, record in outcome.trained] == ["diverged", *["finished"] * 4]
    assert sorted(runs_table(tmp_path / "runs", diverged=True)["status"]) == ["diverged", *["finished"] * 4]
    assert set(runs_table(tmp_path / "runs")["status"]) == {"finished"}
    seen: list[Board] = []
    again = train([bad, *runs], observe=seen.append)
    assert again.failed.keys() == {bad.run_id}, "a new call tries again"
    assert seen[0].failed == {}


def test_a_failure_that_cannot_be_written_is_reported_by_the_worker(train: Train, runs: list[RunConfig]) -> None:
    outcome = train(runs[:1], lambda order, worker: {runs[0].run_id: "No space left on device"})
    assert outcome.failed == {runs[0].run_id: "No space left on device"}


def test_a_dead_workers_run_is_finished_by_another(train: Train, runs: list[RunConfig], tmp_path: Path) -> None:
    deaths = iter(range(2))

    def dies_twice(order: Order, worker: str) -> dict[str, str]:
        if next(deaths, None) is not None:
            leave_claim(RunFolder.create(order.root, runs[0]), worker)
            raise RuntimeError("exit code -9")
        return work(order, worker)

    outcome = train(runs[:1], dies_twice, workers=1)
    assert [config for config, _ in outcome.trained] == runs[:1]


def leave_claim(folder: RunFolder, worker: str, **changes: Any) -> None:
    """What a worker on another machine leaves behind when it dies."""
    claim = foreign_claim(folder, worker, **changes)
    claim.path.write_bytes(content(claim))


def foreign_claim(folder: RunFolder, worker: str, **changes: Any) -> Claim:
    before = find(folder.path / LEASE)
    number = before.generation + 1 if before else 1
    plain = {"counter": "3", "holder": worker, "host": "elsewhere", "pid": 1, "nonce": "n", "machine": "m", "beat": 0.1}
    return Claim(place=folder.path / LEASE, generation=number, **{**plain, **changes})


def test_a_claim_from_elsewhere_that_stands_still_expires(train: Train, runs: list[RunConfig], tmp_path: Path) -> None:
    leave_claim(RunFolder.create(tmp_path / "runs", runs[0]), "a worker of another study")
    started = time.monotonic()
    outcome = train(runs[:2])
    assert len(outcome.trained) == 2
    assert QUICK.patience <= time.monotonic() - started < 20


def test_a_run_that_kills_every_worker_is_given_up(train: Train, runs: list[RunConfig]) -> None:
    def dies(order: Order, worker: str) -> dict[str, str]:
        folder = RunFolder.create(order.root, runs[0])
        if folder.load_failure() is not None:
            return work(order, worker)
        leave_claim(folder, worker)
        raise RuntimeError("exit code -9")

    outcome = train(runs[:2], dies, workers=1)
    assert outcome.failed == {runs[0].run_id: "its worker died 5 times (exit code -9); is there enough memory?"}
    assert len(outcome.trained) == 1


def test_workers_that_die_at_once_end_the_study(train: Train, runs: list[RunConfig]) -> None:
    def dies(order: Order, worker: str) -> dict[str, str]:
        raise RuntimeError("no module named torch")

    with pytest.raises(MoelabError, match="workers die before they train anything: no module named torch"):
        train(runs, dies)


def test_an_edited_config_of_a_finished_run_is_refused(train: Train, runs: list[RunConfig], tmp_path: Path) -> None:
    train(runs[:1])
    path = tmp_path / "runs" / runs[0].run_id / "config.yaml"
    path.write_text(path.read_text().replace("learning_rate: 0.02", "learning_rate: 0.03"))
    with pytest.raises(InputError, match=r"config\.yaml was edited"):
        train(runs[:1])


@pytest.mark.skipif(torch.cuda.is_available(), reason="only where there is no CUDA device")
def test_a_device_that_only_the_cluster_has(dataset: Dataset, a_run: Make) -> None:
    wanted = a_run().replace(
        train={**a_run().train.to_dict(), "device": "cuda", "precision": "auto", "kernels": "auto"}
    )
    with pytest.raises(InputError, match=r"train\.device: cuda"):
        resolve_run(wanted, dataset)
    train = resolve_run(wanted, dataset, elsewhere=True).train
    assert (train.device, train.precision) == ("cuda", "bf16")
