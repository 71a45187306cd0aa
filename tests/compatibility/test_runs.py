"""Run folders of 0.1 are listed and read; a killed run and a branch end as 0.1 would have ended them."""

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from moelab.claim import find
from moelab.data import Dataset, PrepareConfig
from moelab.data.prepare import prepare
from moelab.lease import Busy, Terms, Watch, acquire, revoke
from moelab.runs import RunConfig, RunFolder
from moelab.runs.folder import find_runs
from moelab.training import resolve_run, train_run
from moelab.training.run import load_trained

TRUNK, BRANCH, KILLED = "5c5a0fd5e90c06ac", "b7b7f160cf9322ac", "a8de146880b05e38"
SHORT = Terms(patience=0.2)
Answer = Callable[[str], Any]
Same = Callable[..., None]


def test_prepared_data_is_read_and_reused(workplace: Path) -> None:
    """The hash of its content is checked; the same recipe finds it whole, and makes the same again elsewhere."""
    data = Dataset.open("prepared")
    assert (data.vocab_size, len(data.train)) == (264, 6271)
    config = PrepareConfig(sources=("texts.jsonl",), vocab_size=264, validation_share=0.2)
    assert prepare(config, "prepared").reused
    again = prepare(config, "again")
    assert not again.reused
    assert again.dataset.manifest_hash == data.manifest_hash


def test_runs_are_listed(v0_1: Path, printed: Callable[..., Any], answer: Answer) -> None:
    rows = {row["run_id"]: row for row in printed("runs", str(v0_1 / "runs"), "--json")}
    assert set(rows) == {TRUNK, BRANCH}
    kept = answer("records")
    for run_id, row in rows.items():
        shown = {key: value for key, value in kept[run_id].items() if key in row}
        assert len(shown) > 40
        assert {key: row[key] for key in shown} == shown


@pytest.mark.parametrize(("study", "ended"), [("finished", 11), ("interrupted", 4)])
def test_the_runs_of_studies_are_listed(study: str, ended: int, v0_1: Path, printed: Callable[..., Any]) -> None:
    rows = printed("runs", str(v0_1 / "studies" / study), "--json")
    assert {row["run_id"] for row in rows} == {
        path.parent.name for path in v0_1.glob(f"studies/{study}/runs/*/record.json")
    }
    assert len(rows) == ended


def test_folders_hash_to_their_names(v0_1: Path) -> None:
    roots = [v0_1 / "runs", *v0_1.glob("studies/*/runs")]
    folders = [folder for root in roots for folder in find_runs(root)]
    assert len(folders) == 3 + 11 + 5
    for folder in folders:
        assert folder.load_config().run_id == folder.path.name
        if folder.finished:
            assert folder.load_record().run_id == folder.path.name


@pytest.mark.parametrize("run_id", [TRUNK, BRANCH])
def test_weights_are_read(run_id: str, v0_1: Path, answer: Answer) -> None:
    _, model = load_trained(v0_1 / "runs" / run_id)
    assert sum(weights.numel() for weights in model.parameters()) == answer("records")[run_id]["params_total"]


def test_a_killed_run_goes_on_to_the_same_end(
    workplace: Path, reading: ModuleType, answer: Answer, same_outcome: Same
) -> None:
    """From its checkpoint, once its dead worker's lease, which nobody here can see alive or dead, has run out."""
    folder = RunFolder.open(workplace / "runs" / KILLED)
    assert folder.claim is not None
    assert folder.claim.host == "worker-1"
    record = train_run(folder.load_config(), workplace / "runs", Dataset.open("prepared"), terms=SHORT)
    assert record.resumed == 1
    same_outcome(answer("records")[KILLED], reading.outcomes(workplace / "runs")[KILLED])


def test_a_branch_leaves_the_old_trunk(
    workplace: Path, reading: ModuleType, answer: Answer, same_outcome: Same
) -> None:
    """The branch is trained again, from the checkpoint that 0.1 kept."""
    shutil.rmtree(workplace / "runs" / BRANCH)
    config = RunConfig.from_yaml("configs/trained/branch.yaml").replace(parent={"run": TRUNK, "step": 30})
    data = Dataset.open("prepared")
    config = resolve_run(config, data)
    assert config.run_id == BRANCH
    train_run(config, workplace / "runs", data)
    same_outcome(answer("records")[BRANCH], reading.outcomes(workplace / "runs")[BRANCH])


@pytest.mark.parametrize("name", ["dead", "half_written"])
def test_a_dead_holder_is_watched_and_followed(name: str, workplace: Path) -> None:
    """At first nobody knows; after the patience of whoever asks, or eight of the holder's beats, it is dead."""
    place, now = workplace / "leases" / name, [0.0]
    watch = Watch(2.0, lambda: now[0])
    assert watch.dead(place) is None
    while (claim := watch.dead(place)) is None:
        now[0] += 1
        assert now[0] < 200
    assert now[0] >= 8 * claim.beat
    revoke(claim)
    lease = acquire(place, SHORT)
    assert lease.claim.generation == claim.generation + 2
    lease.release()
    assert not list((workplace / "leases").glob(f"{name}.*"))


def test_a_lease_given_up_for_dead_is_free(workplace: Path) -> None:
    lease = acquire(workplace / "leases" / "given_up", dataclasses.replace(SHORT, judge=False))
    lease.release()


def test_a_dead_holder_elsewhere_is_respected_at_first(workplace: Path) -> None:
    with pytest.raises(Busy, match="worker-1"):
        acquire(workplace / "leases" / "dead", dataclasses.replace(SHORT, judge=False))
    assert find(workplace / "leases" / "dead") is not None
