"""A run is found by its folder, the start of its id, or its name; several that could be meant are refused, by name."""

import json
from pathlib import Path

import pytest

from moelab.architecture import load_preset
from moelab.cli import main
from moelab.errors import InputError
from moelab.runs import RunConfig, RunFolder
from moelab.runs.find import find_design, find_run
from moelab.runs.load_run import read_run_config

MODEL = {"vocab_size": 512, "d_model": 32, "n_layers": 2, "n_heads": 2, "d_ff": 64}
TRAIN = {"tokens": 100_000, "seq_len": 128, "batch_tokens": 1024}
FIXED = {"device": "cpu", "precision": "fp32", "threads": 1, "dispatch": "none"}


def a_run(root: Path, name: str | None, seed: int) -> str:
    value = {"model": MODEL, "data": {"path": "d", "manifest_hash": "abc"}, "train": {**TRAIN, **FIXED, "seed": seed}}
    config = RunConfig.parse(value | ({} if name is None else {"name": name}))
    RunFolder.create(root, config)
    return config.run_id


@pytest.fixture
def ids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Runs here and in a study; two are named alike."""
    monkeypatch.chdir(tmp_path)
    here, study = Path("runs"), Path("studies/s/runs")
    return {
        "first": a_run(here, "small moe", 0),
        "same name 1": a_run(here, "pair", 1),
        "same name 2": a_run(study, "pair", 2),
        "in a study": a_run(study, "big", 3),
        "nameless": a_run(here, None, 4),
    }


def test_each_way_to_name_a_run(ids: dict[str, str]) -> None:
    first = Path("runs") / ids["first"]
    start = ids["first"][:9]
    for words in (first, str(first.resolve()), ids["first"], start, "small moe", f"runs/{start}"):
        assert find_run(words).name == ids["first"], words
    assert find_run("big") == Path("studies/s/runs") / ids["in a study"]
    assert find_run("studies/s/big") == find_run(ids["in a study"])
    assert find_run(ids["nameless"][:8]).name == ids["nameless"]
    assert find_run("pair", "runs").name == ids["same name 1"]


def test_the_shortest_prefix_that_is_not_shared_is_enough(ids: dict[str, str]) -> None:
    for run_id in ids.values():
        length = next(n for n in range(1, 17) if sum(other.startswith(run_id[:n]) for other in ids.values()) == 1)
        assert find_run(run_id[:length]).name == run_id
        if length > 1:
            with pytest.raises(InputError, match="is ambiguous"):
                find_run(run_id[: length - 1])


def test_a_name_of_two_runs_is_refused_with_both(ids: dict[str, str]) -> None:
    with pytest.raises(InputError) as refused:
        find_run("pair")
    for each in ("same name 1", "same name 2"):
        assert f"{ids[each]} (pair)" in str(refused.value)
    assert ids["first"] not in str(refused.value)


def test_a_name_that_begins_another_runs_id_is_ambiguous(ids: dict[str, str]) -> None:
    prefix = ids["first"][:6]
    other = a_run(Path("runs"), prefix, 5)
    with pytest.raises(InputError, match="is ambiguous") as refused:
        find_run(prefix)
    assert other in str(refused.value)
    assert ids["first"] in str(refused.value)


@pytest.mark.parametrize("words", ["nothing", "runs/nothing", "", "runs"])
def test_what_is_no_run_is_refused(ids: dict[str, str], words: str) -> None:
    with pytest.raises(InputError, match="run: "):
        find_run(words)


def test_a_design_may_be_a_run(ids: dict[str, str]) -> None:
    assert find_design("big") == str(Path("studies/s/runs") / ids["in a study"])
    assert find_design("mixtral-8x7b") == "mixtral-8x7b"
    assert find_design("model.yaml") == "model.yaml"
    with pytest.raises(InputError, match="config: 'pair' is ambiguous"):
        find_design("pair")


def test_commands_take_the_start_of_an_id(ids: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    for words in (("count", ids["first"][:10], "--json"), ("compare", "big", "small moe", "--json")):
        with pytest.raises(SystemExit) as ended:
            main(words)
        assert not ended.value.code
        assert json.loads(capsys.readouterr().out)
    for words in (("generate", "pair", "--prompt", "x"), ("routing", "pair"), ("export", "pair", "--to", "hf")):
        with pytest.raises(SystemExit) as ended:
            main(words)
        assert ended.value.code == 2
        assert "run: 'pair' is ambiguous" in capsys.readouterr().err


def test_a_parent_may_be_named(ids: dict[str, str]) -> None:
    value = {"model": MODEL, "data": {"path": "d"}, "train": {**TRAIN, "schedule": "wsd"}}
    for name in ("small moe", ids["first"][:9], ids["first"]):
        config = read_run_config({**value, "parent": {"run": name, "step": 10}}, root="runs")
        assert config.parent is not None
        assert config.parent.run == ids["first"]
    with pytest.raises(InputError, match=r"parent\.run: no run folder, id or name 'big' in runs"):
        read_run_config({**value, "parent": {"run": "big", "step": 10}}, root="runs")


def test_a_name_with_a_dot_is_a_design_as_studies_name_their_runs(ids: dict[str, str]) -> None:
    run_id = a_run(Path("studies/s/runs"), "d32 L2 ff64 0.5M", 6)
    assert find_design("d32 L2 ff64 0.5M") == str(Path("studies/s/runs") / run_id)


def test_a_studys_folder_stands_for_its_runs(ids: dict[str, str]) -> None:
    assert find_run("big", "studies/s") == Path("studies/s/runs") / ids["in a study"]


def test_a_run_may_name_its_model(tmp_path: Path) -> None:
    (tmp_path / "hub").mkdir()
    settings = {"model_type": "llama", "vocab_size": 300, "hidden_size": 32, "intermediate_size": 48}
    settings |= {"num_hidden_layers": 2, "num_attention_heads": 4}
    (tmp_path / "hub" / "config.json").write_text(json.dumps(settings))
    rest = "data: {path: none}\ntrain: {tokens: 100K, seq_len: 128, batch_tokens: 1024}\n"
    path = tmp_path / "run.yaml"
    path.write_text("model: hub\n" + rest)
    assert read_run_config(path).model.d_model == 32
    path.write_text("model: llama3-8b\n" + rest)
    assert read_run_config(path).model == load_preset("llama3-8b")
    path.write_text("model: hub/none.json\n" + rest)
    with pytest.raises(InputError, match=r"model: config: no file, folder or preset 'hub/none.json'"):
        read_run_config(path)
    with pytest.raises(InputError, match="describes a model alone; name it in a run YAML as `model: "):
        read_run_config(tmp_path / "hub" / "config.json")
