"""Tables as trackers and spreadsheets write them: records in cells, words between numbers, run names as JSON's keys."""

import json

import polars as pl
import pytest

from moelab.errors import InputError
from moelab.runs.record_cells import with_fields
from moelab.runs.table import load_table

RUNS = [{"params_total": 1e8 * k, "tokens": 2e9 * k, "loss": 4.0 - 0.1 * k} for k in range(1, 7)]


@pytest.mark.parametrize("write", [str, json.dumps])
def test_the_export_that_trackers_show_is_read(tmp_path, write) -> None:
    """W&B's example writes config and summary as text, Python's or JSON's."""
    summary = [{"val/loss": run["loss"], "_step": 100, "nested": {"a": 1}} for run in RUNS]
    config = [
        {"params_total": run["params_total"], "tokens": run["tokens"], "opt": "adam", "betas": [0.9]} for run in RUNS
    ]
    frame = pl.DataFrame(
        {
            "summary": list(map(write, summary)),
            "config": list(map(write, config)),
            "name": [f"run-{k}" for k in range(6)],
        }
    )
    frame.write_csv(tmp_path / "project.csv")
    table = load_table(tmp_path / "project.csv")
    assert table["val/loss"].to_list() == pytest.approx([run["loss"] for run in RUNS])
    assert table["tokens"].to_list() == [run["tokens"] for run in RUNS]
    assert {"name", "opt", "nested.a"} <= set(table.columns)
    assert not {"summary", "config"} & set(table.columns)


def test_missing_numbers_and_blank_cells_of_records() -> None:
    cells = ["{'loss': nan, 'x': [inf, 1]}", None, "{'loss': 2.5, 'y': True}"]
    table = with_fields(pl.DataFrame({"summary": cells, "y": [1.0, 2.0, 3.0]}))
    assert table["loss"].to_list() == [None, None, 2.5]
    assert table["y"].to_list() == [1.0, 2.0, 3.0]
    assert table["summary.y"].to_list() == [None, None, True]


@pytest.mark.parametrize(
    "cell",
    ["{not a record}", "{1, 2}", "{'a': __import__('os')}", "{'a': 1} {'a': 2}", "{" * 3000 + "}" * 3000, "plain"],
)
def test_what_is_no_record_stays_text(cell) -> None:
    table = pl.DataFrame({"summary": ["{'loss': 1.0}", cell]})
    assert with_fields(table).equals(table)


def test_rows_of_words_between_numbers_are_left_out(tmp_path, capsys) -> None:
    lines = [
        "params_total,tokens,loss,note",
        "M,B,nats,",
        *(f"{40 * k},{0.2 * k},{4 - 0.1 * k},a" for k in range(1, 9)),
    ]
    lines.insert(6, "---,---,---,b")
    (tmp_path / "units.csv").write_text("\n".join(lines) + "\n")
    table = load_table(tmp_path / "units.csv", let=["params_total = 1e6 * params_total"])
    assert table["params_total"].to_list() == [4e7 * k for k in range(1, 9)]
    assert "row 1 ('M', 'B', 'nats') and 1 rows more left out: words where" in capsys.readouterr().err


def test_a_word_in_one_column_leaves_out_nothing(tmp_path, capsys) -> None:
    lines = ["params_total,tokens,loss", *(f"{k}e8,{k}e9,{'OOM' if k == 3 else 4 - 0.1 * k}" for k in range(1, 9))]
    (tmp_path / "oom.csv").write_text("\n".join(lines) + "\n")
    assert load_table(tmp_path / "oom.csv").height == 8
    assert not capsys.readouterr().err


def test_conditions_come_before_the_expressions_that_need_them(tmp_path) -> None:
    lines = ["params_total,tokens,loss", *(f"{k}e8,{k}e9,{'OOM' if k == 3 else 4 - 0.1 * k}" for k in range(1, 9))]
    (tmp_path / "oom.csv").write_text("\n".join(lines) + "\n")
    options = {"let": ["double = 2 * loss"], "where": ["loss != 'OOM'", "double < 7.5"]}
    table = load_table(tmp_path / "oom.csv", **options)
    assert table["double"].to_list() == pytest.approx([2 * (4 - 0.1 * k) for k in (4, 5, 6, 7, 8)])
    with pytest.raises(InputError, match="no rows left by --where"):
        load_table(tmp_path / "oom.csv", let=["loss = 1"], where=["loss > 2", "tokens > 0"])


def test_records_of_a_parquet_file_are_columns(tmp_path) -> None:
    frame = pl.DataFrame({"config": [{"opt": {"lr": 0.1}, "n": 1}, {"opt": {"lr": 0.2}, "n": 2}], "loss": [3.0, 2.9]})
    frame.write_parquet(tmp_path / "runs.parquet")
    table = load_table(tmp_path / "runs.parquet")
    assert set(table.columns) == {"config.opt.lr", "config.n", "loss"}
    assert table["config.opt.lr"].to_list() == [0.1, 0.2]


def test_runs_by_name_are_rows(tmp_path) -> None:
    by_run = {f"run-{k}": run for k, run in enumerate(RUNS)}
    by_column = {name: {f"run-{k}": run[name] for k, run in enumerate(RUNS)} for name in RUNS[0]}
    for value in (by_run, by_column):
        (tmp_path / "runs.json").write_text(json.dumps(value))
        table = load_table(tmp_path / "runs.json")
        assert table["name"].to_list() == [f"run-{k}" for k in range(6)]
        assert table["loss"].to_list() == [run["loss"] for run in RUNS]
    (tmp_path / "one.json").write_text(json.dumps({"config": {"lr": 0.1}, "summary": {"loss": 3.0}}))
    assert load_table(tmp_path / "one.json").height == 1


def test_a_trainers_state_gives_its_history(tmp_path) -> None:
    history = [{"step": 500, "loss": 3.4}, {"step": 500, "eval_loss": 3.3}, {"step": 1000, "eval_loss": 3.1}]
    (tmp_path / "trainer_state.json").write_text(json.dumps({"best_metric": 3.1, "log_history": history, "epoch": 1.0}))
    table = load_table(tmp_path / "trainer_state.json", where=["eval_loss > 0"])
    assert table["step"].to_list() == [500, 1000]


def test_a_folder_of_tables_names_their_pattern(tmp_path) -> None:
    (tmp_path / "a.csv").write_text("loss\n3\n")
    with pytest.raises(InputError, match=r"holds no finished run; it holds tables: '.*/\*\.csv' reads them"):
        load_table(tmp_path)
