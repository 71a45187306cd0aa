"""Tables of runs from any file: columns by expression, rows by condition, clear words about what is wrong."""

import numpy as np
import polars as pl
import pytest

from moelab.errors import InputError
from moelab.runs.table import load_table, rows_where, sort_rows

ROWS = {
    "Training FLOP": [6e20, 1e21, 3e21],
    "Model Size": [10**9, 2 * 10**9, 10**10],
    "router": ["a", "b", "a"],
    "k": [1, 2, 1],
}


@pytest.fixture
def table() -> pl.DataFrame:
    return pl.DataFrame(ROWS)


@pytest.mark.parametrize("suffix", ["csv", "tsv", "parquet", "jsonl", "ndjson", "json"])
def test_every_format_reads_the_same(suffix, table, tmp_path) -> None:
    path = tmp_path / f"runs.{suffix}"
    writers = {
        "csv": table.write_csv,
        "tsv": lambda p: table.write_csv(p, separator="\t"),
        "parquet": table.write_parquet,
        "jsonl": table.write_ndjson,
        "ndjson": table.write_ndjson,
        "json": table.write_json,
    }
    writers[suffix](path)
    read = load_table(path)
    assert read["Model Size"].to_list() == [1e9, 2e9, 1e10]
    assert read["router"].to_list() == ["a", "b", "a"]
    assert read["k"].dtype == pl.Float64


def test_columns_by_expression(table) -> None:
    read = load_table(
        table,
        let=[
            'tokens = "Training FLOP" / (6 * "Model Size")',
            "squared = POW(k, 2)",
            "half = k / 4",
            "k = k + 1",
            "one = 5",
            '"a name" = 1e9 * k',
        ],
    )
    assert read["tokens"].to_list() == pytest.approx([1e11, 1e21 / 12e9, 5e10])
    assert read["squared"].to_list() == [1, 4, 1]
    assert read["half"].to_list() == [0.25, 0.5, 0.25]
    assert read["k"].to_list() == [2, 3, 2]
    assert read["one"].to_list() == [5, 5, 5]
    assert read["a name"].to_list() == [2e9, 3e9, 2e9]


def test_a_changed_column_keeps_its_place(table) -> None:
    assert load_table(table, let=['"Model Size" = "Model Size" / 2']).columns == table.columns


def test_rows_without_a_value_come_last_in_either_order() -> None:
    table = pl.DataFrame({"x": [2.0, None, 1.0, float("nan"), 3.0], "n": [0, 1, 2, 3, 4]})
    assert sort_rows(table, "x")["n"].to_list() == [2, 0, 4, 1, 3]
    assert sort_rows(table, "x", descending=True)["n"].to_list() == [4, 0, 2, 1, 3]
    assert sort_rows(pl.DataFrame({"x": ["b", None, "a"]}), "x", descending=True)["x"].to_list() == ["b", "a", None]


def test_whole_numbers_do_not_overflow(table) -> None:
    read = load_table(
        table, let=['cube = "Model Size" * "Model Size" * "Model Size"', "big = 9223372036854775807 * 10 * k"]
    )
    assert read["cube"].to_list() == pytest.approx([1e27, 8e27, 1e30])
    assert read["big"][0] == pytest.approx(9.223372036854775807e19)


def test_rows_by_condition(table) -> None:
    assert load_table(table, where=["router = 'a'", '"Model Size" > 2e9']).height == 1
    assert load_table(table, where=["router in ('a', 'b') and k = 1"]).height == 2
    assert rows_where(table, "router = 'a'").tolist() == [True, False, True]
    strings = pl.DataFrame({"id": ["12345678", "x"]})
    assert load_table(strings, where=["id = '12345678'"]).height == 1


@pytest.mark.parametrize(
    ("let", "where", "message"),
    [
        ("tokens = 300B * k", None, "write '300B' as a plain number such as 3e11"),
        ("tokens = k ^ 2", None, r"write powers as POW\(x, y\)"),
        ("tokens = missing + 1", None, 'unable to find column "missing"; valid columns'),
        ("tokens", None, "expected NAME = EXPRESSION, got 'tokens'"),
        ("tokens = ", None, "expected NAME = EXPRESSION"),
        ("2x = k", None, "expected NAME = EXPRESSION"),
        ("tokens = k +", None, "--let tokens: the expression breaks off"),
        ("tokens = k; drop", None, "one expression only"),
        (None, "missing > 5", "--where 'missing > 5': unable to find column"),
        (None, "k ==", "the expression breaks off"),
        (None, "k > 5", "no rows left by --where"),
        (None, "k > 5B", "write '5B' as a plain number"),
    ],
)
def test_bad_expressions_are_refused(let, where, message, table) -> None:
    with pytest.raises(InputError, match=message):
        load_table(table, [let] if let else [], [where] if where else [])


def test_the_place_in_the_query_around_a_condition_is_not_named(table) -> None:
    with pytest.raises(InputError) as caught:
        load_table(table, where=["k <"])
    assert "Column" not in str(caught.value)


def test_words_for_a_missing_number_leave_a_column_of_numbers(tmp_path) -> None:
    path = tmp_path / "runs.csv"
    path.write_text("loss,tokens,router\n3.5,1e9,a\nnan,NA,1\n 2.5,2e9,-\ninf,3e9,b\n")
    assert load_table(path, where=["loss < 100"])["loss"].to_list() == [3.5, 2.5]
    assert load_table(path, where=["tokens < 1e12"]).height == 3
    assert load_table(path)["router"].to_list() == ["a", "1", "-", "b"]


def test_a_column_named_twice_is_refused(tmp_path) -> None:
    path = tmp_path / "runs.csv"
    path.write_text("loss,loss,tokens\n3.5,2.5,1e9\n")
    with pytest.raises(InputError, match="names the column 'loss' twice"):
        load_table(path)


def test_bad_files_are_refused(tmp_path) -> None:
    (tmp_path / "runs.dat").write_text("x")
    (tmp_path / "runs.csv").write_text("")
    (tmp_path / "runs.jsonl").write_text("{nothing")
    (tmp_path / "runs.parquet").write_text("nothing")
    for name, message in (
        ("absent.csv", "no such file or folder"),
        ("runs.dat", "is none of .csv"),
        ("runs.csv", "is empty"),
        ("runs.jsonl", "cannot read"),
        ("runs.parquet", "cannot read"),
        (".", "holds no finished run"),
    ):
        with pytest.raises(InputError, match=message):
            load_table(tmp_path / name)


def test_a_condition_for_rows_must_be_true_or_false(table) -> None:
    with pytest.raises(InputError, match="expected true or false for each row"):
        rows_where(table, "k + 1")


def test_nulls_never_satisfy_a_condition() -> None:
    table = pl.DataFrame({"k": [1.0, None, 3.0]})
    assert np.array_equal(rows_where(table, "k > 0"), [True, False, True])
