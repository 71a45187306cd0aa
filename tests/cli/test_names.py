"""Names, labels and licences are text: rich markup, emoji codes and terminal escapes in them never act."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from moelab.cli import main
from moelab.cli.output import print_line, print_table
from moelab.data import Dataset
from moelab.data.progress import rich_report
from moelab.executors import Board
from moelab.executors.display import Display
from moelab.runs import RunConfig
from moelab.training import train_run
from moelab.training.display import follow

SHOWN = {
    "a[/bold]": "a[/bold]",
    "[red]x": "[red]x",
    "[link=http://evil.example]x[/link]": "[link=http://evil.example]x[/link]",
    ":bomb:": ":bomb:",
    "\x1b[2J\x1b]0;x\x07": "\\x1b[2J\\x1b]0;x\\x07",
    "a\rb": "a\\rb",
    "a\u202eb": "a\\u202eb",
    "a\nb": "a\\nb",
}
NAMES = list(SHOWN)
CONFIG = {
    "model": {"vocab_size": 300, "d_model": 16, "n_layers": 1, "n_heads": 2, "d_ff": 32},
    "train": {"tokens": 640, "seq_len": 16, "batch_tokens": 64, "eval_tokens": 160},
}


def call(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    with pytest.raises(SystemExit) as caught:
        main(words)
    captured = capsys.readouterr()
    return int(str(caught.value.code)), captured.out + captured.err


def acts(text: str) -> bool:
    return any(character in text.replace("\n", "") for character in "\x1b\r\x07\u202e")


@pytest.mark.parametrize(("name", "shown"), list(SHOWN.items()), ids=range(len(NAMES)))
def test_tables_and_lines_show_text(capsys: pytest.CaptureFixture[str], name: str, shown: str) -> None:
    print_table([name, "value"], [[name, 1], ["x", 2]], title=name)
    print_line(name)
    out = capsys.readouterr().out
    assert out.count(shown) == 4
    assert not acts(out)


def test_a_run_of_any_name_is_trained_and_listed(
    tiny_dataset: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [NAMES[0], "".join(NAMES)]
    for seed, name in enumerate(names):
        config = {**CONFIG, "name": name, "labels": {"[/red]\x1b": name}, "data": {"path": str(tiny_dataset.folder)}}
        (tmp_path / "run.yaml").write_text(yaml.safe_dump(config))
        words = ("train", str(tmp_path / "run.yaml"), "--out", str(tmp_path / "runs"), "--set", f"train.seed={seed}")
        code, text = call(capsys, *words)
        assert code == 0, text
        assert not acts(text)
    code, text = call(capsys, "runs", str(tmp_path / "runs"), "--columns", "name,[/red]\x1b")
    assert code == 0
    assert not acts(text)
    assert "a[/bold]" in text
    assert "[/red]\\x1b" in text
    code, text = call(capsys, "runs", str(tmp_path / "runs"), "--json")
    assert sorted(row["name"] for row in json.loads(text)) == sorted(names)


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_progress_shows_text(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("COLUMNS", "150")
    resolved = {"device": "cpu", "precision": "fp32", "threads": 1, "dispatch": "none"}
    given = {"data": {"path": "x", "manifest_hash": "a"}, "train": {**CONFIG["train"], **resolved}}
    config = RunConfig.parse({**CONFIG, **given, "name": name})
    with follow(config) as watch:
        assert watch is not None
        watch({"step": 1.0, "loss": 3.0, "tokens_per_second": 1e3})
    with rich_report() as report:
        report(name, 1, 2)
    display = Display()
    display.stage(f"Stage {name}")
    display.line(name)
    display.console.print(display._draw(board_of(config)))
    err = capsys.readouterr().err
    assert not acts(err)
    assert err.count(SHOWN[name]) == 5


def board_of(config: RunConfig) -> Board:
    numbers = {"step": 1.0, "steps": 2.0, "loss": 3.0, "tokens_per_second": 1e3}
    return Board(total=1, names={config.run_id: config.name or ""}, running={config.run_id: numbers}, total_flops=1.0)


@pytest.mark.parametrize("name", [name for name in NAMES if "\n" not in name])
def test_errors_show_text(capsys: pytest.CaptureFixture[str], name: str) -> None:
    code, text = call(capsys, "count", f"nowhere-{name}")
    assert code == 2
    assert not acts(text)


def test_generated_text_does_not_act_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tiny_dataset: Dataset,
    make_run: Any,
    tmp_path: Path,
) -> None:
    train_run(make_run(tokens=64), tmp_path, tiny_dataset)
    words = ("generate", str(next(tmp_path.iterdir())), "--prompt", "a\x1b[2J\nb", "--max-new-tokens", "1")
    code, text = call(capsys, *words)
    assert code == 0
    assert "a\x1b[2J\nb" in text
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    code, text = call(capsys, *words)
    assert code == 0
    assert "a\\x1b[2J\nb" in text


def test_a_number_is_never_broken_in_two_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    print_table(["design", "tokens", "loss of it", "memory"], [["a name", "123.4B", "2.287", "19.75 GB"]] * 2)
    words = capsys.readouterr().out.split()
    for number in ("123.4B", "2.287", "19.75"):
        assert words.count(number) == 2
