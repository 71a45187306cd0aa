"""`moelab generate` on a run trained for a few steps: the same seed gives the same text, wrong input one line."""

import json
from pathlib import Path

import pytest

from moelab.cli import main
from moelab.data import Dataset, PrepareConfig
from moelab.data.prepare import prepare
from moelab.runs import RunConfig
from moelab.training import resolve_run, train_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("generate")
    texts = root / "texts"
    texts.mkdir()
    for number in range(60):
        (texts / f"{number}.txt").write_text(
            f"Report {number}. " + f"The tide rose {number} feet by the old pier. " * 12
        )
    dataset = prepare(PrepareConfig(sources=(str(texts),), vocab_size=270), root / "data").dataset
    assert isinstance(dataset, Dataset)
    moe = {"n_experts": 4, "top_k": 2, "d_expert": 16}
    value = {
        "model": {"vocab_size": 270, "d_model": 16, "n_layers": 1, "n_heads": 2, "moe": moe},
        "data": {"path": str(root / "data")},
        "train": {"tokens": 2048, "seq_len": 32, "batch_tokens": 512},
    }
    config = resolve_run(RunConfig.parse(value), dataset)
    train_run(config, root / "runs", dataset)
    return root / "runs" / config.run_id


def call(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stop:
        main(["generate", *words])
    out, err = capsys.readouterr()
    return int(stop.value.code or 0), out, err


def test_json_and_text_agree(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = (str(run), "--prompt", "The tide", "--prompt", "By", "--max-new-tokens", "12", "--seed", "3")
    code, out, _ = call(capsys, *words, "--json")
    assert code == 0
    texts = json.loads(out)["texts"]
    assert [row["prompt"] for row in texts] == ["The tide", "By"]
    assert all(0 < row["tokens"] <= 12 for row in texts)
    code, plain, _ = call(capsys, *words)
    assert plain == "".join(row["prompt"] + row["continuation"] + "\n" for row in texts)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--prompt", ""), "error: --prompt: must not be empty"),
        (("--prompt", "a", "--temperature", "-1"), "error: temperature: must be at least 0"),
        (("--prompt", "a", "--data", "nowhere"), "error: data"),
    ],
)
def test_bad_input(run: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], message: str) -> None:
    code, out, err = call(capsys, str(run), *words)
    assert code == 2
    assert out == ""
    assert err.startswith(message)
    assert err.count("\n") == 1


def test_missing_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = call(capsys, str(tmp_path / "none"), "--prompt", "a")
    assert code == 2
    assert err.count("\n") == 1
