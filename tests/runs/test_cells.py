"""CSV files that a spreadsheet opens: no text becomes a formula, numbers stay, and we read back what we wrote."""

import csv
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moelab.errors import InputError
from moelab.runs.table import load_table, save_table

FORMULAS = [
    "=1+1",
    "+1+1",
    "-2+3",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    "\n=1",
    "=cmd|' /C calc'!A0",
    "＝1+1",
    "－1",
    "'=1",
    "''=1",
]
PLAIN = ["a", "", "'a'", "a=b", " =1", "1-2", "e-5", "it's", '"=1"', "a;b", "a\tb", 'a,"b"', "a\nb", None]
ACTIVE = "=+-@\t\r\n＝＋－＠"


def cells(path: Path) -> list[list[str]]:
    with open(path, encoding="utf-8", newline="") as stream:
        return list(csv.reader(stream))


def test_text_that_begins_as_a_formula_gets_an_apostrophe(tmp_path: Path) -> None:
    table = pl.DataFrame({"name": [*FORMULAS, *PLAIN], "=label": ["x"] * len([*FORMULAS, *PLAIN])})
    save_table(table, tmp_path / "runs.csv")
    head, *rows = cells(tmp_path / "runs.csv")
    assert head == ["name", "'=label"]
    assert [row[0] for row in rows] == [*(f"'{text}" for text in FORMULAS), *(text or "" for text in PLAIN)]
    assert not any(cell[:1] in ACTIVE for row in [head, *rows] for cell in row if cell)


def test_our_own_reader_gives_the_text_back(tmp_path: Path) -> None:
    texts = [*FORMULAS, *(text for text in PLAIN if text)]
    table = pl.DataFrame({"name": texts, "=label": texts[::-1]})
    save_table(table, tmp_path / "runs.csv")
    assert load_table(tmp_path / "runs.csv").equals(table)
    save_table(load_table(tmp_path / "runs.csv"), tmp_path / "again.csv")
    assert (tmp_path / "again.csv").read_bytes() == (tmp_path / "runs.csv").read_bytes()


@pytest.mark.parametrize("texts", [["-", "5"], ["-5", "+6"], ["=1", "2"], ["nan", "-1"]])
def test_text_that_reads_like_a_number_stays_text(tmp_path: Path, texts: list[str]) -> None:
    save_table(pl.DataFrame({"name": texts}), tmp_path / "runs.csv")
    assert load_table(tmp_path / "runs.csv")["name"].to_list() == texts


def test_numbers_are_untouched(tmp_path: Path) -> None:
    table = pl.DataFrame({"x": [-1.5, 2.0, float("-inf"), None], "n": [-3, 4, 5, 6], "ok": [True, False, None, True]})
    save_table(table, tmp_path / "runs.csv")
    expected = "x,n,ok\n-1.5,-3,true\n2.0,4,false\n-inf,5,\n,6,true\n"
    assert (tmp_path / "runs.csv").read_text() == expected


def test_text_with_another_locales_separator_is_quoted(tmp_path: Path) -> None:
    """A spreadsheet that splits at semicolons would begin a cell in the middle of such a text."""
    save_table(pl.DataFrame({"name": ["a;=1+1"], "x": [1.0]}), tmp_path / "runs.csv")
    assert (tmp_path / "runs.csv").read_text() == '"name","x"\n"a;=1+1",1.0\n'
    save_table(pl.DataFrame({"name;=1": ["a"], "x": [1.0]}), tmp_path / "runs.csv")
    assert (tmp_path / "runs.csv").read_text() == '"name;=1","x"\n"a",1.0\n'


TEXT = st.text(st.sampled_from("='+-@\t;,\"ab1 "), min_size=1, max_size=5)


@given(st.lists(TEXT, min_size=1, max_size=4))
def test_any_text_is_written_safely_and_read_back(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    path = tmp_path_factory.getbasetemp() / "any.csv"
    table = pl.DataFrame({"name": [*texts, "text"]})
    save_table(table, path)
    assert not any(row[0][:1] in ACTIVE for row in cells(path))
    assert load_table(path)["name"].to_list() == [*texts, "text"]


def test_columns_that_a_csv_cannot_hold_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"out: cannot write .*runs\.csv: "):
        save_table(pl.DataFrame({"parts": [[1, 2]]}), tmp_path / "runs.csv")
    assert not list(tmp_path.iterdir())
