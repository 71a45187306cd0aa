"""A branched decay equals the same schedule trained from scratch; trunks keep what branches need; misfits are named."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from moelab.data import Dataset
from moelab.errors import InputError, MoelabError
from moelab.runs import RunConfig, RunFolder
from moelab.training import train_run

MOE = {"moe": {"n_experts": 4, "top_k": 2, "d_expert": 16, "bias_update": 0.01}}
MOT = {"moe": {"n_experts": 4, "top_k": 2, "d_expert": 16, "router": "mixture_of_tokens", "group_size": 2}}
TRUNK = {"schedule": "constant", "warmup_steps": 2, "tokens": 12 * 64, "keep_steps": [6, 9], "evaluations": 3}


def branch_of(trunk: RunConfig, step: int, **train: Any) -> RunConfig:
    """Four steps of decay from `step` on."""
    changed = {
        **trunk.train.to_dict(),
        "schedule": "wsd",
        "tokens": (step + 4) * 64,
        "decay_steps": 4,
        "keep_steps": [],
    }
    return trunk.replace(train={**changed, **train}, parent={"run": trunk.run_id, "step": step})


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("step", [6, pytest.param(9, marks=pytest.mark.slow)])
@pytest.mark.parametrize("model", [None, MOE], ids=["dense", "moe"])
def test_a_branch_equals_its_schedule_from_scratch(
    make_run: Any,
    undisturbed: Any,
    train_until: Any,
    dataset: Dataset,
    tmp_path: Path,
    model: Any,
    step: int,
    optimizer: str,
) -> None:
    trunk = make_run(model, optimizer=optimizer, **TRUNK)
    branch = branch_of(trunk, step)
    whole = branch.replace(parent=None)
    assert len({config.run_id for config in (trunk, branch, whole)}) == 3
    shutil.copytree(undisturbed(trunk), tmp_path / trunk.run_id)
    if step == 9:
        train_until(branch, tmp_path, dataset, 11)
    branched = train_run(branch, tmp_path, dataset)
    straight = train_run(whole, tmp_path, dataset)
    assert (branched.loss, branched.train_loss, branched.train_flops) == (
        straight.loss,
        straight.train_loss,
        straight.train_flops,
    )
    assert (branched.parent_run, branched.parent_step) == (trunk.run_id, step)
    one, other = (load_file(tmp_path / c.run_id / "model.safetensors") for c in (branch, whole))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_branch_may_hold_the_transition(make_run: Any, dataset: Dataset, tmp_path: Path) -> None:
    trunk = make_run(MOT, **TRUNK)
    branch = branch_of(trunk, 6, transition={"at": 0.6})
    assert branch.train.switch_step == 6
    train_run(trunk, tmp_path, dataset)
    straight = train_run(branch.replace(parent=None), tmp_path, dataset)
    assert train_run(branch, tmp_path, dataset).loss == straight.loss
    early = branch_of(trunk, 9, transition={"at": 0.5})
    with pytest.raises(InputError, match="parent: the transitions differ before step 9"):
        train_run(early, tmp_path, dataset)


def test_a_finished_trunk_keeps_the_named_checkpoints_only(make_run: Any, dataset: Dataset, tmp_path: Path) -> None:
    trunk = make_run(**TRUNK)
    train_run(trunk, tmp_path, dataset, checkpoint_seconds=0)
    assert sorted(path.name for path in (tmp_path / trunk.run_id / "checkpoints").iterdir()) == ["00000006", "00000009"]
    with pytest.raises(MoelabError, match=r"holds no checkpoint of step 7; train it with train\.keep_steps"):
        train_run(branch_of(trunk, 7), tmp_path, dataset)


def test_what_is_kept_names_no_run(make_run: Any) -> None:
    plain = make_run()
    assert make_run(keep_steps=[3], keep_checkpoints=5).run_id == plain.run_id
    with pytest.raises(InputError, match="keep_steps: must be at most the run's 40 steps, got 41"):
        make_run(keep_steps=[3, 41])


def test_the_last_k_are_kept_while_training(make_run: Any, train_until: Any, dataset: Dataset, tmp_path: Path) -> None:
    config = make_run(keep_checkpoints=3, keep_steps=[2])
    train_until(config, tmp_path, dataset, 8)
    names = sorted(path.name for path in (tmp_path / config.run_id / "checkpoints").iterdir())
    assert names == ["00000002", "00000006", "00000007", "00000008"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 1}, r"parent: train\.seed is 1, the parent's is 0"),
        ({"batch_tokens": 128, "tokens": 12 * 128}, r"parent: train\.batch_tokens is 128"),
        ({"warmup_steps": 3}, r"parent: at step 0 the learning rate would be .*give both the same warmup_steps"),
        ({"decay_steps": 6}, r"parent: at step 4 the learning rate would be .*decay_steps of 4 to the branch"),
    ],
)
def test_a_branch_that_does_not_continue_is_refused(
    make_run: Any, undisturbed: Any, dataset: Dataset, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    trunk = make_run(**TRUNK)
    shutil.copytree(undisturbed(trunk), tmp_path / trunk.run_id)
    with pytest.raises(InputError, match=message):
        train_run(branch_of(trunk, 6, **change), tmp_path, dataset)


def test_other_misfits(make_run: Any, dataset: Dataset, tmp_path: Path) -> None:
    trunk = make_run(**TRUNK)
    with pytest.raises(InputError, match=r"parent\.run: run: .* is not a run folder"):
        train_run(branch_of(trunk, 6), tmp_path, dataset)
    train_run(trunk, tmp_path, dataset)
    branch = branch_of(trunk, 6)
    wider = branch.replace(model={**branch.model.to_dict(), "d_ff": 48})
    with pytest.raises(InputError, match="parent: the model is not that of run"):
        train_run(wider, tmp_path, dataset)
    fewer = branch.replace(data={**branch.data.to_dict(), "unique_tokens": 1000})
    with pytest.raises(InputError, match="parent: data differs"):
        train_run(fewer, tmp_path, dataset)
    with pytest.raises(InputError, match=r"parent\.step: must be below the run's 10 steps, got 10"):
        branch.replace(parent={"run": trunk.run_id, "step": 10})
    with pytest.raises(InputError, match=r"parent\.run: string should match pattern"):
        branch.replace(parent={"run": "trunk", "step": 6})
    damaged = RunFolder(tmp_path / trunk.run_id).path / "checkpoints" / "00000006" / "model.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-8])
    with pytest.raises(MoelabError, match="00000006 is damaged"):
        train_run(branch, tmp_path, dataset)


def test_warmup_and_decay_in_steps(make_run: Any) -> None:
    train = make_run(schedule="wsd", warmup_steps=3, decay_steps=7).train
    assert (train.warmup, train.decay) == (3, 7)
    with pytest.raises(InputError, match="warmup_steps, decay_steps: together at most the run's 40 steps, got 41"):
        make_run(schedule="wsd", warmup_steps=20, decay_steps=21)
    with pytest.raises(InputError, match="decay_steps: only the schedule wsd has it, not cosine"):
        make_run(decay_steps=4)
