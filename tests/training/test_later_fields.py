"""Fields that came after 0.1 are written into new runs; runs that 0.1 began, and their branches, go on as they were."""

from pathlib import Path
from typing import Any

import pytest

from moelab.data import Dataset
from moelab.errors import InputError
from moelab.runs import RunConfig, RunFolder
from moelab.training import resolve, resolve_run, train_run
from moelab.training.adopt import adopt, find_kin

LATER = ("kernels", "muon_split")


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads are part of a run's name; that several compute is not what these tests are about, and busy cores wait."""
    monkeypatch.setattr("torch.set_num_threads", lambda threads: None)


@pytest.fixture(autouse=True)
def split_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolve, "MUON_SPLIT", True)


def asked(make_run: Any, dataset: Dataset, **train: Any) -> RunConfig:
    """What a person writes: nothing that a machine or a default decides."""
    plain = make_run(optimizer="muon", **train).to_dict()
    fields = {name: value for name, value in plain["train"].items() if name not in LATER}
    return RunConfig.parse({**plain, "data": {"path": str(dataset.folder)}, "train": fields})


def by_0_1(config: RunConfig) -> RunConfig:
    return config.replace(train={k: v for k, v in config.train.to_dict().items() if k not in LATER})


def test_new_runs_have_them_written_out(make_run: Any, dataset: Dataset, tmp_path: Path) -> None:
    config = resolve_run(asked(make_run, dataset), dataset, root=tmp_path)
    assert (config.train.muon_split, config.train.kernels) == (True, make_run().train.kernels)
    assert resolve_run(config, dataset, root=tmp_path) == config
    assert config.run_id != by_0_1(config).run_id
    assert make_run().train.muon_split is None
    off = asked(make_run, dataset).replace(train={**asked(make_run, dataset).train.to_dict(), "muon_split": False})
    assert resolve_run(off, dataset, root=tmp_path).train.muon_split is False


def test_a_run_that_0_1_began_goes_on_as_it_was(make_run: Any, dataset: Dataset, tmp_path: Path) -> None:
    old = by_0_1(resolve_run(asked(make_run, dataset), dataset))
    assert resolve_run(old, dataset) == old
    RunFolder.create(tmp_path, old)
    assert resolve_run(asked(make_run, dataset), dataset, root=tmp_path) == old


def test_a_branch_has_its_parents(make_run: Any, dataset: Dataset, tmp_path: Path) -> None:
    trunk = by_0_1(resolve_run(asked(make_run, dataset, schedule="constant"), dataset))
    RunFolder.create(tmp_path, trunk)
    branch = asked(make_run, dataset, schedule="wsd").replace(parent={"run": trunk.run_id, "step": 5})
    assert resolve_run(branch, dataset, root=tmp_path).train.muon_split is None
    assert resolve_run(branch, dataset).train.muon_split is True


def test_a_run_of_0_1_is_adopted_as_it_was(make_run: Any, train_until: Any, dataset: Dataset, tmp_path: Path) -> None:
    old = by_0_1(resolve_run(asked(make_run, dataset, threads=2), dataset))
    train_until(old, tmp_path, dataset, 5)
    here = resolve_run(asked(make_run, dataset), dataset, root=tmp_path)
    assert here.train.muon_split is True
    assert [kin.run_id for kin in find_kin(here, tmp_path)] == [old.run_id]
    child = adopt(here, tmp_path, old.run_id)
    assert child.train.muon_split is None
    assert train_run(child, tmp_path, dataset).notes[0].endswith("train.threads 2 to 1")


def test_a_split_of_muons_matrices_needs_muon(make_run: Any) -> None:
    """Under AdamW it would change nothing, so no run may be named by it."""
    with pytest.raises(InputError, match=r"train: muon_split: only the optimizer muon has it, not adamw; leave it out"):
        make_run(muon_split=True)
    assert make_run(muon_split=False).run_id == make_run().run_id
