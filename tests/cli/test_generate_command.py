"""`moelab generate` on a run trained for a few steps: the same seed gives the same text, wrong input one line."""

import json
from pathlib import Path

import pytest

from moelab.cli import main
from moelab.data import Dataset, PrepareConfig, load_tokenizer
from moelab.data.prepare import prepare
from moelab.model.generate import generate
from moelab.runs import RunConfig
from moelab.training import load_trained, resolve_run, train_run


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
        ((), "error: --prompt: is required, or --from-start"),
        (("--prompt", "a", "--temperature", "-1"), "error: --temperature: must be at least 0"),
        (("--prompt", "a", "--data", "nowhere"), "error: --data"),
    ],
)
def test_bad_input(run: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], message: str) -> None:
    code, out, err = call(capsys, str(run), *words)
    assert code == 2
    assert out == ""
    assert err.startswith(message)
    assert err.count("\n") == 1


def test_a_document_from_its_start(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An empty prompt is the token that ends the document before, and so is --from-start with none."""
    words = (str(run), "--max-new-tokens", "12", "--temperature", "0", "--json")
    texts = []
    for more in (("--prompt", ""), ("--from-start",), ("--from-start", "--prompt", "")):
        code, out, _ = call(capsys, *words, *more)
        assert code == 0
        texts.append(json.loads(out)["texts"])
    assert texts[0] == texts[1] == texts[2]
    config, model = load_trained(run)
    end = Dataset.open(config.data.path).manifest.end_of_text
    (expected,) = generate(model, [[end]], max_new_tokens=12, temperature=0, eos=end)
    assert texts[0][0]["tokens"] == len(expected)
    decoded = load_tokenizer(Dataset.open(config.data.path).tokenizer_path).decode(expected)
    assert texts[0][0]["continuation"] == decoded


def test_a_prompt_from_the_start_follows_the_end_of_the_document_before(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    monkeypatch.setattr("moelab.model.generate.generate", lambda model, prompts, **how: seen.append(prompts) or [[5]])
    for more in ((), ("--from-start",)):
        assert call(capsys, str(run), "--prompt", "The tide", *more)[0] == 0
    (inside,), (start,) = seen
    config, _ = load_trained(run)
    assert start == [Dataset.open(config.data.path).manifest.end_of_text, *inside]


def test_missing_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = call(capsys, str(tmp_path / "none"), "--prompt", "a")
    assert code == 2
    assert err.count("\n") == 1
