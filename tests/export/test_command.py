"""`moelab export` end to end: tiny runs are trained, exported, read by transformers; errors in one line."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from moelab.cli import main
from moelab.training import train_run

MOE = {"n_experts": 4, "top_k": 2, "d_expert": 16}


@pytest.fixture
def run_folder(make_run: Callable[..., Any], tiny_dataset: Any, tmp_path: Path) -> Callable[..., Path]:
    """A function that trains a tiny run and returns its folder."""

    def train(model: dict[str, Any], **how: Any) -> Path:
        run = make_run(model, tokens=64 * 8, **how)
        train_run(run, tmp_path / "runs", tiny_dataset)
        return tmp_path / "runs" / run.run_id

    return train


def call(*words: Any) -> int:
    with pytest.raises(SystemExit) as caught:
        main([str(word) for word in words])
    return int(caught.value.code or 0)


def test_a_run_becomes_a_folder(run_folder: Callable[..., Path], tmp_path: Path, capsys: Any) -> None:
    transformers = pytest.importorskip("transformers")
    folder, out = run_folder({"moe": MOE}), tmp_path / "my-model"
    assert call("export", folder, "--to", "hf", "--out", out) == 0
    text = capsys.readouterr().out
    assert "Qwen3MoeForCausalLM" in text
    assert "the largest difference of a logit is" in text
    theirs = transformers.AutoModelForCausalLM.from_pretrained(out)
    record = json.loads((folder / "record.json").read_text())
    assert theirs.num_parameters() == record["params_total"]
    assert f"{record['params_total']:,} parameters" in (out / "README.md").read_text()
    assert call("export", folder, "--to", "hf", "--out", out) == 2
    assert "--force replaces it" in capsys.readouterr().err


def test_json_lists_what_was_written(
    run_folder: Callable[..., Path], tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = run_folder({})
    monkeypatch.chdir(tmp_path)
    assert call("export", folder, "--to", "hf", "--no-check", "--dtype", "bf16", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["path"] == f"exports/{folder.name}-hf"
    assert (found["architecture"], found["dtype"], found["check"]) == ("Qwen3ForCausalLM", "bf16", None)
    assert (tmp_path / found["path"] / "model.safetensors").stat().st_size < found["bytes"]


def test_a_run_becomes_a_gguf_file(run_folder: Callable[..., Path], tmp_path: Path, capsys: Any) -> None:
    pytest.importorskip("gguf")
    pytest.importorskip("transformers")
    folder, out = run_folder({"moe": MOE, "qk_norm": "none"}), tmp_path / "model.gguf"
    assert call("export", folder, "--to", "gguf", "--out", out, "--dtype", "f16", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["architecture"] == "llama"
    assert found["check"]["difference"] < found["check"]["tolerance"]
    assert out.read_bytes()[:4] == b"GGUF"


def test_mixtures_export_after_their_transition_only(
    run_folder: Callable[..., Path], tmp_path: Path, capsys: Any
) -> None:
    mixture = {"moe": {**MOE, "router": "mixture_of_tokens", "group_size": 2}}
    before = run_folder(mixture)
    assert call("export", before, "--to", "hf", "--out", tmp_path / "a", "--no-check") == 2
    assert "router: mixture_of_tokens" in capsys.readouterr().err
    after = run_folder(mixture, transition={"at": 0.5})
    assert call("export", after, "--to", "hf", "--out", tmp_path / "b", "--no-check") == 0
    assert "trained as a mixture of tokens up to step 4" in capsys.readouterr().out
    assert json.loads((tmp_path / "b" / "config.json").read_text())["norm_topk_prob"] is False


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--to", "onnx"], "to: expected hf or gguf, got 'onnx'"),
        (["--to", "hf", "--dtype", "int4"], "--dtype: expected one of fp32, bf16, f16, got 'int4'"),
        (["--to", "gguf", "--out", "model.bin"], "ends in .gguf"),
        ([], "Missing option"),
    ],
)
def test_wrong_words_are_one_line(words: list[str], message: str, run_folder: Callable[..., Path], capsys: Any) -> None:
    if "gguf" in words:
        pytest.importorskip("gguf")
    assert call("export", run_folder({"qk_norm": "none"}), *words) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_an_unfinished_run_is_refused(run_folder: Callable[..., Path], tmp_path: Path, capsys: Any) -> None:
    folder = run_folder({})
    (folder / "record.json").unlink()
    assert call("export", folder, "--to", "hf", "--out", tmp_path / "out") == 2
    assert "not finished" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
