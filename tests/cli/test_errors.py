"""Wrong input of every kind: one line on stderr that names the field, exit code 2, no traceback, nothing written."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from moelab.cli import main
from moelab.data import PrepareConfig
from moelab.data.prepare import prepare

MODEL = {"vocab_size": 300, "d_model": 16, "n_layers": 2, "n_heads": 2, "d_ff": 32}
TRAIN = {"tokens": 640, "seq_len": 16, "batch_tokens": 64, "eval_tokens": 320}
TEXT = "the cat sat on a mat while two dogs ran past seven tall trees and over an old wall"
WORDS = TEXT.split(" ")
MOE = {"n_experts": 4, "top_k": 2, "d_expert": 16}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    texts = tmp_path_factory.mktemp("texts")
    for index in range(40):
        (texts / f"{index}.txt").write_text(" ".join(WORDS[(index * 7 + i * i) % len(WORDS)] for i in range(120)))
    out = tmp_path_factory.mktemp("prepared") / "data"
    prepare(PrepareConfig(sources=(str(texts),), vocab_size=300), out)
    return out


@pytest.fixture
def run(tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """Write a run YAML with some changes, train it, and return (exit code, stderr)."""

    def call(*words: str, model: dict[str, Any] | None = None, **train: Any) -> tuple[int, str]:
        config = {"model": {**MODEL, **(model or {})}, "data": {"path": str(data)}, "train": {**TRAIN, **train}}
        path = tmp_path / "run.yaml"
        path.write_text(yaml.safe_dump(config))
        return invoke(capsys, "train", str(path), "--out", str(tmp_path / "runs"), *words)

    return call


def invoke(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    with pytest.raises(SystemExit) as caught:
        main(words)
    return int(str(caught.value.code)), capsys.readouterr().err


def complains(result: tuple[int, str], *words: str) -> None:
    code, text = result
    assert code == 2, text
    assert "Traceback" not in text
    *progress, last = text.splitlines()
    assert last.startswith("error: ")
    assert all(line.endswith(" ...") for line in progress)
    for word in words:
        assert word in text


def test_a_good_run_works(run: Any, tmp_path: Path) -> None:
    code, _ = run()
    assert code == 0
    assert list((tmp_path / "runs").glob("*/record.json"))


@pytest.mark.parametrize("words", [(), ("--json",)])
def test_a_run_that_diverges_exits_with_one(
    run: Any, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], tmp_path: Path
) -> None:
    monkeypatch.setattr("moelab.training.trainer.Trainer.step", lambda self: float("nan"))
    code, text = run(*words)
    assert code == 1
    assert "error" not in text
    assert len(list((tmp_path / "runs").glob("*/record.json"))) == 1


@pytest.mark.parametrize(
    ("model", "train", "words"),
    [
        ({"d_modle": 16}, {}, ("model.d_modle", "did you mean 'd_model'")),
        ({"n_layers": "two"}, {}, ("model.n_layers", "expected a number")),
        ({"n_layers": -1}, {}, ("model.n_layers", "greater than 0")),
        ({"n_heads": 3}, {}, ("d_model", "multiple of n_heads")),
        ({"moe": {**MOE, "top_k": 5}}, {}, ("top_k", "at most n_experts (4)")),
        ({"vocab_size": 100}, {}, ("vocab_size", "at least the data's 300")),
        ({}, {"tokens": -5}, ("train.tokens", "greater than 0")),
        ({}, {"learning_rate": "fast"}, ("train.learning_rate", "expected a number")),
        ({}, {"batch_tokens": 50}, ("batch_tokens", "multiple of seq_len")),
        ({}, {"dispatch": "magic"}, ("dispatch", "magic")),
        ({"moe": MOE}, {"dispatch": "magic"}, ("dispatch", "magic")),
        ({}, {"eval_tokens": 3}, ("eval_tokens",)),
    ],
)
def test_wrong_fields(run: Any, tmp_path: Path, model: Any, train: Any, words: tuple[str, ...]) -> None:
    complains(run(model=model, **train), *words)
    assert not list(tmp_path.glob("runs/*/record.json"))


@pytest.mark.parametrize(
    ("assignment", "words"),
    [
        ("train.sed=3", ("train.sed", "did you mean 'seed'")),
        ("train.seed", ("--set", "KEY=VALUE")),
        ("train.seed=-1", ("train.seed", "greater than or equal to 0")),
    ],
)
def test_wrong_settings(run: Any, assignment: str, words: tuple[str, ...]) -> None:
    complains(run("--set", assignment), *words)


def test_unwritable_place(run: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    complains(run("--out", str(tmp_path / "file" / "runs")), "--out", "cannot create")


def test_missing_data(run: Any) -> None:
    complains(run("--set", "data.path=nowhere"), "nowhere", "moelab data prepare")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("train", "nowhere.yaml"), ("no such file", "nowhere.yaml")),
        (("train",), ("Missing argument",)),
        (("count", "nowhere"), ("presets", "mixtral-8x7b")),
        (("generate", "nowhere", "--prompt", "x"), ("nowhere",)),
        (("generate", "nowhere", "--prompt", "\udcff"), ("--prompt", "UTF-8")),
        (("study", "nowhere"), ("ready: quickstart",)),
        (("runs", "nowhere"), ("nowhere",)),
        (("data", "prepare", "--source", "nowhere"), ("nowhere",)),
        (("data", "prepare", "--vocab-size", "20"), ("--vocab-size", "at least")),
        (("frobnicate",), ("No such command",)),
        (("count", "mixtral-8x7b", "--frob"), ("No such option",)),
        (("plan", "--flops", "lots"), ("flops", "1e21")),
        (("plan", "--flops", "-1"), ("flops",)),
        (("fit", "nowhere.csv", "--law", "abnar2025"), ("nowhere.csv",)),
        (("serving", "mixtral-8x7b", "--hardware", "abacus"), ("abacus", "h100")),
    ],
)
def test_wrong_words(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: Any, expected: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    complains(invoke(capsys, *words), *expected)


def test_empty_corpus(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "empty.txt").write_text("")
    words = ("data", "prepare", "--source", str(tmp_path / "texts"), "--out", str(tmp_path / "out"))
    complains(invoke(capsys, *words), "texts holds no text")
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_a_strange_key_beside_model(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump({"model": MODEL, "dta": {}}))
    complains(invoke(capsys, "count", str(path)), "unknown key 'dta'", "data")


@pytest.mark.parametrize("temperature", ["nan", "-1", "1e-300"])
def test_strange_temperatures(run: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], temperature: str) -> None:
    run()
    folder = next((tmp_path / "runs").iterdir())
    complains(invoke(capsys, "generate", str(folder), "--prompt", "the", "--temperature", temperature), "temperature")


def test_a_run_folder_with_an_edited_config_is_refused(run: Any, tmp_path: Path) -> None:
    run()
    path = next((tmp_path / "runs").glob("*/config.yaml"))
    path.write_text(path.read_text().replace("seq_len: 16", "seq_len: 8"))
    complains(run(), "was edited")


def test_help_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    for command in ("count", "plan", "train", "study", "fit"):
        assert command in text
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0


def test_an_unexpected_failure_is_one_line_and_debug_shows_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object) -> None:
        raise RuntimeError("surprise")

    monkeypatch.setattr("moelab.architecture.count.load_model", fail)
    code, text = invoke(capsys, "count", "mixtral-8x7b")
    assert code == 1
    assert "surprise" in text
    assert text.count("\n") == 1
    with pytest.raises(RuntimeError, match="surprise"):
        main(["count", "mixtral-8x7b", "--debug"])


@pytest.mark.parametrize(
    "words",
    [
        ("serving", "olmoe-1b-7b", "--hardware", "h100", "--cached"),
        ("serving", "olmoe-1b-7b", "--hardware", "h100", "--draft", "1", "--acceptance"),
        ("fit", "runs.csv", "--holdout"),
        ("isoflop", "runs.csv", "--by", "budget", "--tolerance"),
        ("generate", "run", "--top-p"),
        ("data", "prepare", "texts", "--validation-share"),
        ("plan", "--flops", "1e22", "--hardware", "h100", "--serve-tokens", "1e12", "--within"),
    ],
)
def test_every_option_of_a_share_takes_a_percentage(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the rest of the line asks for may be missing: the share itself is read, or named."""
    monkeypatch.chdir(tmp_path)
    if words[0] != "plan":
        assert "number such as" not in invoke(capsys, *words, "10%")[1]
    code, err = invoke(capsys, *words, "10B")
    assert code == 2
    assert words[-1] in err
    assert "expected a number such as 0.1 or 10%" in err
