"""An unfinished run that differs only in what the machine decided is found, named, and gone on from as a child."""

import json
from pathlib import Path
from typing import Any

import pytest

from moelab.cli import main
from moelab.data import Dataset
from moelab.errors import InputError
from moelab.runs import RunConfig, RunFolder
from moelab.training import train_run
from moelab.training.adopt import adopt, find_kin

MOE = {"moe": {"n_experts": 4, "top_k": 2, "d_expert": 16}}


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads are part of a run's name; that several compute is not what these tests are about, and busy cores wait."""
    monkeypatch.setattr("torch.set_num_threads", lambda threads: None)


@pytest.mark.parametrize("optimizer", [pytest.param("adamw", marks=pytest.mark.slow), "muon"])
def test_a_child_goes_on_from_where_the_other_stopped(
    make_run: Any, train_until: Any, dataset: Dataset, tmp_path: Path, optimizer: str
) -> None:
    """Here nothing but the name differs, so the child ends as the parent would have, to the digit."""
    parent = make_run(MOE, optimizer=optimizer, dispatch="sorted", kernels="torch", tokens=20 * 64, threads=2)
    here = make_run(MOE, optimizer=optimizer, dispatch="sorted", kernels="torch", tokens=20 * 64)
    straight = train_run(here, tmp_path / "straight", dataset)
    train_until(parent, tmp_path, dataset, 6)
    (kin,) = find_kin(here, tmp_path)
    assert str(kin) == (f"an unfinished run differs only in train.threads (2 there, 1 here): {parent.run_id}, step 6")
    child = adopt(here, tmp_path, parent.run_id)
    train_until(child, tmp_path, dataset, 10)
    assert adopt(here, tmp_path, str(tmp_path / parent.run_id)) == child
    record = train_run(child, tmp_path, dataset)
    assert len({record.run_id, parent.run_id, here.run_id}) == 3
    assert (record.parent_run, record.parent_step) == (parent.run_id, 6)
    assert record.notes[0] == f"goes on from step 6 of run {parent.run_id}: train.threads 2 to 1"
    assert (record.loss, record.weights_sha256) == (straight.loss, straight.weights_sha256)
    assert (record.tokens, record.train_flops) == (straight.tokens, straight.train_flops)
    assert adopt(here, tmp_path, parent.run_id) == child


@pytest.mark.parametrize(("before", "after"), [("fp32", "bf16"), pytest.param("bf16", "fp32", marks=pytest.mark.slow)])
def test_other_kernels_dispatch_and_precision_are_adopted(
    make_run: Any, train_until: Any, dataset: Dataset, tmp_path: Path, before: str, after: str
) -> None:
    """Weights and optimiser state are fp32 in either, so the child goes on from the parent's very numbers."""
    parent = make_run(MOE, dispatch="sorted", precision=before, kernels="torch", tokens=12 * 64)
    here = make_run(MOE, dispatch="loop", precision=after, kernels="torch", tokens=12 * 64)
    train_until(parent, tmp_path, dataset, 6)
    assert set(find_kin(here, tmp_path)[0].fields) == {"train.dispatch", "train.precision", "train.kernels"}
    record = train_run(adopt(here, tmp_path, parent.run_id), tmp_path, dataset)
    assert (record.parent_step, record.precision, record.dispatch) == (6, after, "loop")
    assert f"train.precision {before} to {after}, train.dispatch sorted to loop" in record.notes[0]
    straight = train_run(here, tmp_path / "straight", dataset)
    assert record.loss == pytest.approx(straight.loss, rel=0.02)
    assert record.tokens == straight.tokens


def test_a_run_is_adopted_by_the_start_of_its_id_or_by_its_name(
    make_run: Any, train_until: Any, dataset: Dataset, tmp_path: Path
) -> None:
    here = make_run(dispatch="none", kernels="torch", tokens=12 * 64).replace(name="small dense")
    first, second = (here.replace(train={**here.train.to_dict(), "threads": threads}) for threads in (2, 3))
    train_until(first, tmp_path, dataset, 2)
    RunFolder.create(tmp_path, here.replace(train={**here.train.to_dict(), "seed": 1}))
    child = adopt(here, tmp_path, first.run_id)
    assert adopt(here, tmp_path, "small dense") == child
    assert adopt(here, tmp_path, first.run_id[:6]) == child
    assert adopt(here, tmp_path, str(tmp_path / first.run_id[:6])) == child
    train_until(second, tmp_path, dataset, 2)
    with pytest.raises(InputError, match="'small dense' is ambiguous"):
        adopt(here, tmp_path, "small dense")
    RunFolder.create(tmp_path / "elsewhere", here)
    with pytest.raises(InputError, match="the run must lie in --out"):
        adopt(here, tmp_path, str(tmp_path / "elsewhere" / here.run_id))


def test_a_child_may_be_adopted_again(make_run: Any, train_until: Any, dataset: Dataset, tmp_path: Path) -> None:
    first, second, third = (
        make_run(dispatch="none", kernels="torch", tokens=16 * 64, threads=threads) for threads in (1, 2, 3)
    )
    train_until(first, tmp_path, dataset, 4)
    child = adopt(second, tmp_path, first.run_id)
    train_until(child, tmp_path, dataset, 9)
    assert [kin.step for kin in find_kin(third, tmp_path)] == [9, 4]
    grandchild = adopt(third, tmp_path, child.run_id)
    assert grandchild.parent is not None
    assert (grandchild.parent.run, grandchild.parent.step) == (child.run_id, 9)
    assert train_run(grandchild, tmp_path, dataset).status == "finished"


def test_what_cannot_be_adopted(make_run: Any, train_until: Any, dataset: Dataset, tmp_path: Path) -> None:
    here, other = make_run(), make_run(threads=2, seed=1, learning_rate=0.01)
    with pytest.raises(InputError, match="no run folder, id or name"):
        adopt(here, tmp_path, other.run_id)
    train_until(other, tmp_path, dataset, 3)
    assert find_kin(here, tmp_path) == []
    with pytest.raises(InputError, match=r"differs in train\.learning_rate, train\.seed; allowed: device"):
        adopt(here, tmp_path, other.run_id)
    train_until(here, tmp_path, dataset, 3)
    assert find_kin(here, tmp_path) == []
    with pytest.raises(InputError, match="is this run itself"):
        adopt(here, tmp_path, here.run_id)
    apart = make_run(threads=2)
    RunFolder.create(tmp_path, apart)
    assert find_kin(make_run(threads=3), tmp_path)[0].run_id == here.run_id
    with pytest.raises(InputError, match="holds no whole checkpoint"):
        adopt(here, tmp_path, apart.run_id)
    done = train_run(make_run(threads=2, tokens=4 * 64), tmp_path, dataset)
    with pytest.raises(InputError, match="is finished"):
        adopt(here, tmp_path, done.run_id)


def test_a_plain_branch_must_not_differ_in_the_machine(make_run: Any, dataset: Dataset, tmp_path: Path) -> None:
    trunk = make_run(keep_steps=[5], tokens=10 * 64, schedule="constant")
    train_run(trunk, tmp_path, dataset)
    branch = trunk.replace(
        train={**trunk.train.to_dict(), "threads": 2, "keep_steps": []}, parent={"run": trunk.run_id, "step": 5}
    )
    with pytest.raises(InputError, match=r"parent: train\.threads is 2, the parent's is 1"):
        train_run(branch, tmp_path, dataset)


def test_the_command_names_the_run_and_adopts_it(
    make_run: Any, train_until: Any, dataset: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = make_run(kernels="torch", tokens=12 * 64)
    plain = asked.to_dict()
    plain["data"] = {"path": str(dataset.folder)}
    file = tmp_path / "config.json"
    file.write_text(json.dumps(plain))
    parent = RunConfig.parse({**asked.to_dict(), "train": {**asked.train.to_dict(), "threads": 2}})
    train_until(parent, tmp_path / "runs", dataset, 5)
    with pytest.raises(SystemExit) as ended:
        main(["train", str(file), "--out", str(tmp_path / "runs"), "--json", "--adopt", parent.run_id])
    assert ended.value.code == 0
    record = json.loads(capsys.readouterr().out)
    assert (record["parent_run"], record["parent_step"]) == (parent.run_id, 5)
    with pytest.raises(SystemExit):
        main(["train", str(file), "--out", str(tmp_path / "runs"), "--json"])
    streams = capsys.readouterr()
    assert f"continue it with moelab train CONFIG --adopt {parent.run_id}" in streams.err
    whole = json.loads(streams.out)
    assert whole["parent_run"] is None
