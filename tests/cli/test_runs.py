"""`moelab runs`: one damaged record does not hide the others; wrong columns are answered with close ones."""

import json
from pathlib import Path

import pytest

from moelab.cli import main
from moelab.runs import RunConfig, RunFolder, RunRecord, run_columns

BASE = {
    "model": {"vocab_size": 512, "d_model": 32, "n_layers": 2, "n_heads": 2, "d_ff": 64},
    "data": {"path": "somewhere", "manifest_hash": "abc"},
}
TRAIN = {"tokens": 100_000, "seq_len": 128, "batch_tokens": 1024, "device": "cpu", "precision": "fp32", "threads": 1}
MEASURED = {"device": "cpu", "precision": "fp32", "threads": 1, "dispatch": "none", "seconds": 1.0}


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Three finished runs, the last one with a leak-free loss."""
    for seed in range(3):
        config = RunConfig.parse({**BASE, "train": {**TRAIN, "dispatch": "none", "seed": seed}})
        more = {"tokens_per_second": 1e4, "peak_memory_bytes": 10**8, "data_hash": "abc", "bits_per_byte": 2.0}
        outcome = {"run_id": config.run_id, "status": "finished", "loss": 3.5 + seed}
        leak_free = {"loss_leak_free": 6.25} if seed == 2 else {}
        record = RunRecord.parse({**run_columns(config), **MEASURED, **more, **outcome, **leak_free})
        RunFolder.create(tmp_path, config).save_record(record)
    return tmp_path


def invoke(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stop:
        main(["runs", *words])
    caught = capsys.readouterr()
    return int(stop.value.code or 0), caught.out, caught.err


def test_both_losses_are_columns(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = invoke(capsys, str(runs), "--sort", "loss")
    assert (code, err) == (0, "")
    assert "loss_leak_free" in out.splitlines()[0]
    assert "6.2500" in out.splitlines()[-1]


DAMAGED = {
    "cut": '{"run_id": ',
    "incomplete": '{"run_id": "x"}',
    "a list": "[]",
    "deep": "[" * 100_000,
    "deep, but not for Python's reader": '{"labels": ' + '{"a":' * 400 + "1" + "}" * 401,
    "an endless whole number": '{"seed": ' + "1" * 9000 + "}",
    "a key that stands twice": '{"loss": 1.0, "loss": 2.0}',
    "not UTF-8": "\udcff",
}
CHANGED = {
    "a whole number beyond 64 bits": {"params_total": 2**64},
    "one of 200 digits": {"tokens": 10**200},
    "no number": {"loss": "x" * 10_000},
    "an infinite number": {"loss": float("inf")},
    "layers with other numbers": {"routing": [{"load_entropy": 1.0}, {"dead_experts": 2.0}]},
    "a deep label": {"labels": {"a": [[[[1]]]]}},
}


def check_left_out(runs: Path, damaged: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = invoke(capsys, str(runs), "--columns", "loss")
    assert code == 0
    assert len(out.splitlines()) == 3
    first, second = err.splitlines()
    assert first.startswith("warning: left out: ")
    assert damaged.name in first
    assert len(first) < 700 + len(str(damaged))
    assert second == "warning: 1 of 3 records are damaged and left out"
    code, _, err = invoke(capsys, str(damaged))
    assert (code, len(err.splitlines())) == (2, 1)


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED.keys())
def test_a_damaged_record_is_left_out_and_named(runs: Path, capsys: pytest.CaptureFixture[str], content: str) -> None:
    damaged = sorted(runs.iterdir())[1]
    (damaged / "record.json").write_text(content, errors="surrogateescape")
    check_left_out(runs, damaged, capsys)


@pytest.mark.parametrize("change", CHANGED.values(), ids=CHANGED.keys())
def test_a_changed_record_is_left_out_and_named(
    runs: Path, capsys: pytest.CaptureFixture[str], change: dict[str, object]
) -> None:
    damaged = sorted(runs.iterdir())[1]
    record = json.loads((damaged / "record.json").read_text())
    (damaged / "record.json").write_text(json.dumps({**record, **change}))
    check_left_out(runs, damaged, capsys)


def test_many_damaged_records_are_counted_and_all_named(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = sorted(runs.iterdir())[0]
    for number in range(20):
        copy = runs / f"{number:016x}"
        copy.mkdir()
        (copy / "config.yaml").write_text((first / "config.yaml").read_text())
        (copy / "record.json").write_text("{")
    code, out, err = invoke(capsys, str(runs), "--columns", "loss")
    assert (code, len(out.splitlines()), len(err.splitlines())) == (0, 4, 11)
    assert err.splitlines()[-1].startswith("warning: 20 of 23 records are damaged and left out: 0000000000000000, ")
    assert all(f"{number:016x}" in err for number in range(20))


def test_wrong_columns_are_answered_with_close_ones(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = invoke(capsys, str(runs), "--sort", "los")
    assert (code, err.count("\n")) == (2, 1)
    assert "--sort: no column 'los'" in err
    assert "close: loss" in err
    code, _, err = invoke(capsys, str(runs), "--columns", "loss,zzzzzz")
    assert code == 2
    assert "--columns: no column 'zzzzzz'" in err


@pytest.mark.parametrize("words", [("--sort", "-loss"), ("--sort=-loss",)])
def test_a_minus_sorts_the_largest_first(
    runs: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    code, out, _ = invoke(capsys, str(runs), *words, "--json")
    assert code == 0
    assert [row["loss"] for row in json.loads(out)] == [5.5, 4.5, 3.5]
    code, out, _ = invoke(capsys, str(runs), "--sort", "-loss_leak_free", "--json")
    assert [row["loss_leak_free"] for row in json.loads(out)] == [6.25, None, None]
    code, _, err = invoke(capsys, str(runs), "--sort", "-los")
    assert code == 2
    assert "--sort: no column 'los'" in err


def test_let_changes_a_column_that_is_there(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--let", "loss = loss * 2", "--let", "loss = loss + 1", "--sort", "loss")
    code, out, err = invoke(capsys, str(runs), *words)
    assert (code, err) == (0, "")
    assert out.split().count("loss") == 1
    assert "8.0000" in out.splitlines()[1]
    _, plain, _ = invoke(capsys, str(runs))
    assert out.splitlines()[0].split() == plain.splitlines()[0].split()


def test_columns_hold_for_json_and_files_too(runs: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    table = tmp_path.parent / "loss.csv"
    chosen = ("--columns", "loss, seed", "--sort", "tokens", "--out", str(table))
    code, out, _ = invoke(capsys, str(runs), *chosen, "--json")
    assert code == 0
    assert sorted(row["loss"] for row in json.loads(out)) == [3.5, 4.5, 5.5]
    assert {tuple(row) for row in json.loads(out)} == {("loss", "seed")}
    assert table.read_text().splitlines()[0] == "loss,seed"
    _, out, _ = invoke(capsys, str(runs), "--json")
    assert len(json.loads(out)[0]) > 40


def test_a_studys_folder_finds_its_runs(runs: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    study = tmp_path / "study"
    (study / "runs").mkdir(parents=True)
    for run in [path for path in runs.iterdir() if path != study]:
        run.rename(study / "runs" / run.name)
    code, out, _ = invoke(capsys, str(study), "--columns", "loss")
    assert (code, len(out.splitlines())) == (0, 4)


def test_a_table_of_others_needs_none_of_our_columns(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "theirs.csv").write_text("size,score\n2,0.5\n1,0.25\n")
    code, out, _ = invoke(capsys, str(tmp_path / "theirs.csv"))
    assert (code, out.split()) == (0, ["size", "score", "2", "0.5", "1", "0.25"])
