"""JSON tables: every row is read strictly, and what is wrong is named by its line."""

import gzip
import json
import math
from pathlib import Path

import polars as pl
import pytest

from moelab.errors import InputError
from moelab.runs.table import load_table

ROWS = [{"loss": 3.5, "n": 1, "name": "a"}, {"loss": 2, "n": 10**37, "name": None}, {"n": 3, "more": True}]


def test_what_is_right_is_read_as_polars_reads_it(tmp_path: Path) -> None:
    lines = "\n".join(json.dumps(row) for row in ROWS)
    for name, text in (
        ("a.jsonl", lines),
        ("b.ndjson", "\ufeff\n" + lines.replace("\n", "\r\n\r\n") + "\n"),
        ("c.json", json.dumps(ROWS)),
        ("d.json", json.dumps(ROWS, indent=2) + "\n"),
    ):
        (tmp_path / name).write_text(text)
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress(text.encode()))
        expected = {
            "loss": [3.5, 2.0, None],
            "n": [1.0, 1e37, 3.0],
            "name": ["a", None, None],
            "more": [None, None, 1.0],
        }
        assert load_table(tmp_path / name).to_dict(as_series=False) == expected
        assert load_table(tmp_path / f"{name}.gz").to_dict(as_series=False) == expected
    (tmp_path / "one.json").write_text('{"n": 1}')
    assert load_table(tmp_path / "one.json").equals(pl.DataFrame({"n": [1.0]}))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ('{"n": 1, "n": 2}', "line 3 names the key 'n' twice"),
        ('{"n": {"a": 1, "a": 1}}', "line 3 names the key 'a' twice"),
        (f'{{"n": {"9" * 9_000}}}', "line 3 holds a whole number of 9,000 digits"),
        (f'{{"n": -{"9" * 39}}}', "line 3 holds a whole number of 39 digits"),
        ('{"n": 1e999}', "line 3 holds 1e999, beyond the largest 64-bit float"),
        ('{"n": [-1e400]}', "line 3 holds -1e400, beyond"),
        ('{"n": -Infinity}', "line 3 holds -Infinity"),
        ('{"n": 01}', "line 3 is not JSON"),
        ('{"n": 1', "line 3 is not JSON|line 4 is not JSON"),
        ('["n"]', "line 3: expected columns and values in braces"),
        ("nothing", "line 3 is not JSON"),
    ],
)
@pytest.mark.parametrize("suffix", ["jsonl", "json"])
def test_a_wrong_row_is_named_by_its_line(row: str, message: str, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"runs.{suffix}"
    rows = ['{"n": 1}', '{"n": 2}', row, '{"n": 4}']
    path.write_text("\n".join(rows) if suffix == "jsonl" else "[" + ",\n".join(rows) + "]")
    with pytest.raises(InputError, match=f"runs: cannot read .*{suffix}: ({message})") as caught:
        load_table(path)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[{"n": 1}\n {"n": 2}]', "line 2 is not JSON|line 1 is not JSON"),
        ('[{"n": 1},\n', "line 2 is not JSON"),
        ('[\n{"n": 1}', "line 2 is not JSON"),
        ('[\n{"n": "\xff"}]', "line 2 is not UTF-8 text"),
    ],
)
def test_a_broken_list_is_named_by_its_line(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "runs.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match=message):
        load_table(path)


@pytest.mark.parametrize("number", ["1e999", "9" * 9_000, "-1e400"])
def test_a_number_too_large_in_a_csv_file_is_named_by_its_row(number: str, tmp_path: Path) -> None:
    path = tmp_path / "runs.csv"
    path.write_text(f"name,loss\na,inf\nb,{number}\n")
    with pytest.raises(InputError, match=r"row 2, column 'loss': .* is too large a number"):
        load_table(path)
    path.write_text(f"name,loss\na,NA\nb,{number}\nc,3\n")
    with pytest.raises(InputError, match="row 2, column 'loss': "):
        load_table(path)
    path.write_text("name,loss\na,inf\nb,-inf\nc,3\n")
    assert load_table(path)["loss"].to_list() == [math.inf, -math.inf, 3]


def test_rows_under_one_key(tmp_path) -> None:
    (tmp_path / "runs.json").write_text('{"runs": [{"config": {"tokens": 1e9}, "loss": 3.0}, {"loss": 2.5}]}')
    table = load_table(tmp_path / "runs.json")
    assert table.columns == ["tokens", "loss"]
    assert table["loss"].to_list() == [3.0, 2.5]
