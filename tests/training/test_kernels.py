"""One run id, one result: the kernels that compute a run are part of its name, or it is refused."""

from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from moelab.data import Dataset
from moelab.errors import InputError
from moelab.model import native
from moelab.runs import RunConfig, RunFolder
from moelab.training import resolve_run, train_run

MOE = {"moe": {"n_experts": 4, "top_k": 2, "d_expert": 16}}
compiled = pytest.mark.skipif(native.load()[0] is None, reason=native.status())


@pytest.fixture
def lack_kernels(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function after whose call this machine has no compiled kernels."""
    places = ("moelab.model.native.load", "moelab.model.dispatch.load")

    def lack() -> None:
        for place in places:
            monkeypatch.setattr(place, lambda: (None, "no C compiler found"))

    return lack


def as_0_1_wrote_it(config: RunConfig) -> RunConfig:
    """The same resolved config without the fields that came later."""
    return config.replace(train={key: value for key, value in config.train.to_dict().items() if key != "kernels"})


@compiled
@pytest.mark.parametrize("model", [pytest.param(None, marks=pytest.mark.slow), MOE], ids=["dense", "moe"])
def test_other_kernels_are_another_run_with_other_digits(
    make_run: Any, dataset: Dataset, tmp_path: Path, model: Any
) -> None:
    fixed = {"dispatch": "sorted"} if model else {}
    one, other = make_run(model, **fixed), make_run(model, kernels="torch", **fixed)
    assert (one.train.kernels, other.train.kernels) == ("native", "torch")
    assert one.run_id != other.run_id
    records = [train_run(config, tmp_path, dataset) for config in (one, other)]
    assert [record.versions["kernels"] for record in records] == ["native", "torch"]
    first, second = (load_file(tmp_path / config.run_id / "model.safetensors") for config in (one, other))
    assert any(not first[name].equal(second[name]) for name in first)
    assert native.usable()


@compiled
def test_torch_kernels_are_those_of_a_machine_without_a_compiler(
    make_run: Any, dataset: Dataset, tmp_path: Path, lack_kernels: Any
) -> None:
    asked = make_run(MOE, kernels="torch")
    one = train_run(asked, tmp_path / "a", dataset)
    lack_kernels()
    found = make_run(MOE)
    assert (found.run_id, found.train.dispatch) == (asked.run_id, "sorted")
    other = train_run(found, tmp_path / "b", dataset)
    assert (one.loss, one.weights_sha256) == (other.loss, other.weights_sha256)


@compiled
def test_a_run_is_refused_where_its_kernels_are_missing(
    make_run: Any, dataset: Dataset, tmp_path: Path, lack_kernels: Any
) -> None:
    native_run, of_0_1 = make_run(), as_0_1_wrote_it(make_run(MOE))
    assert (of_0_1.train.kernels, of_0_1.train.dispatch) == ("auto", "native")
    lack_kernels()
    for config in (native_run, of_0_1):
        with pytest.raises(InputError, match=r"train\.kernels: native was asked for.* none: no C compiler"):
            train_run(config, tmp_path, dataset)
    with pytest.raises(InputError, match=r"train\.kernels: native was asked for"):
        make_run(kernels="native")
    with pytest.raises(InputError, match=r"train\.dispatch: native needs train\.kernels: native"):
        make_run(MOE, dispatch="native")


@compiled
def test_a_run_does_not_go_on_with_other_kernels(
    make_run: Any, train_until: Any, dataset: Dataset, tmp_path: Path, lack_kernels: Any
) -> None:
    config = as_0_1_wrote_it(make_run())
    train_until(config, tmp_path, dataset, 5)
    lack_kernels()
    with pytest.raises(InputError, match=r"the run began on native kernels, this machine would go on with torch"):
        train_run(config, tmp_path, dataset)


def test_kernels_that_cannot_run_are_refused(make_run: Any) -> None:
    with pytest.raises(InputError, match="native kernels compute fp32 on a CPU, not bf16 on cpu"):
        make_run(kernels="native", precision="bf16")
    assert make_run(precision="bf16").train.kernels == "torch"


@compiled
def test_names_of_0_1_stay(make_run: Any, dataset: Dataset, tmp_path: Path, lack_kernels: Any) -> None:
    """With kernels the name is that of 0.1; without, a run that 0.1 began keeps its name, a new one gets its own."""
    new = make_run()
    old = as_0_1_wrote_it(new)
    assert old.run_id == new.run_id
    assert resolve_run(old, dataset) == old
    bf16 = make_run(precision="bf16")
    assert as_0_1_wrote_it(bf16).run_id == bf16.run_id
    asked = RunConfig.parse({**new.to_dict(), "data": {"path": str(dataset.folder)}})
    asked = asked.replace(train={**asked.train.to_dict(), "kernels": "auto"})
    lack_kernels()
    assert resolve_run(asked, dataset, root=tmp_path).run_id != old.run_id
    RunFolder.create(tmp_path, old)
    assert resolve_run(asked, dataset, root=tmp_path) == old
