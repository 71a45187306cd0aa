"""Tables as people have them are read: separators, decimal commas, pandas' layouts, NaN, xlsx, zst, globs, W&B."""

import gzip
import json
import zipfile
from pathlib import Path

import polars as pl
import pytest

from moelab.errors import InputError
from moelab.runs.table import load_table

TABLES = Path(__file__).parents[1] / "fixtures" / "tables"
COLUMNS = ["params_total", "tokens", "loss"]


@pytest.mark.parametrize("name", ["semi.csv", "spaces.csv", "pandas_default.json", "nan.jsonl", "percent.csv"])
def test_tables_of_others_are_read(name) -> None:
    table = load_table(TABLES / name)
    assert table.columns == COLUMNS
    assert table.height == 36
    assert all(kind == pl.Float64 for kind in table.dtypes)
    assert table["params_total"][0] == 5e7
    if name == "nan.jsonl":
        assert table["loss"][0] is None
    elif name != "percent.csv":
        assert table["loss"][0] == pytest.approx(3.9084, abs=1e-4)


def test_a_line_with_too_many_fields_is_named() -> None:
    message = r"ragged.csv: line \d+ has 4 fields, the header names 3 columns: '"
    with pytest.raises(InputError, match=message) as caught:
        load_table(TABLES / "ragged.csv")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("separator", [";", "\t", "|"])
def test_separators_and_decimal_commas(separator, tmp_path) -> None:
    path = tmp_path / "runs.csv"
    rows = [["loss ", "router", "n"], ["3,5", "a,b", "1"], ["-2,25e1", "c", "2"], ["", "1,5", "3"]]
    path.write_text("\n".join(separator.join(row) for row in rows) + "\n")
    table = load_table(path)
    assert table.columns == ["loss", "router", "n"]
    assert table["loss"][:2].to_list() == [3.5, -22.5]
    assert table["router"].to_list() == ["a,b", "c", "1,5"]


@pytest.mark.parametrize("orient", ["records", "split", "table", "columns", "index", "list"])
def test_layouts_of_pandas(orient, tmp_path) -> None:
    a, b = [1.0, 2.0], ["x", "y"]
    records = [{"a": v, "b": w} for v, w in zip(a, b, strict=True)]
    layouts = {
        "records": records,
        "split": {"columns": ["a", "b"], "index": [0, 1], "data": [[1.0, "x"], [2.0, "y"]]},
        "table": {"schema": {"fields": []}, "data": records},
        "columns": {"a": {"0": 1.0, "1": 2.0}, "b": {"0": "x", "1": "y"}},
        "index": {"0": records[0], "1": records[1]},
        "list": {"a": a, "b": b},
    }
    path = tmp_path / "runs.json"
    path.write_text(json.dumps(layouts[orient]))
    assert load_table(path).to_dict(as_series=False) == {"a": a, "b": b}


def test_nested_fields_are_columns(tmp_path) -> None:
    path = tmp_path / "runs.jsonl"
    row = {
        "config": {"lr": {"value": 0.1, "desc": None}, "model": {"width": 8}},
        "summary": {"loss": 3.5},
        "tags": ["a"],
    }
    path.write_text(json.dumps(row) + "\n" + json.dumps({"summary": {"loss": float("nan")}}) + "\n")
    table = load_table(path)
    assert table.to_dict(as_series=False) == {"lr": [0.1, None], "model.width": [8.0, None], "loss": [3.5, None]}


def test_compressed_tables(tmp_path) -> None:
    csv, lines = b"loss,tokens\n3.5,1e9\n", b'{"loss": 3.5, "tokens": 1e9}\n'
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(csv))
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(lines))
    names = ["a.csv.gz", "b.jsonl.gz"]
    try:
        import zstandard

        for name, content in (("c.csv.zst", csv), ("d.jsonl.zst", lines)):
            (tmp_path / name).write_bytes(zstandard.ZstdCompressor().compress(content))
            names.append(name)
    except ImportError:
        (tmp_path / "c.csv.zst").write_bytes(b"x")
        with pytest.raises(InputError, match="pip install zstandard"):
            load_table(tmp_path / "c.csv.zst")
    for name in names:
        assert load_table(tmp_path / name).to_dict(as_series=False) == {"loss": [3.5], "tokens": [1e9]}


def test_several_files_name_their_rows(tmp_path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.csv").write_text("loss,tokens\n3.5,1e9\n")
    (tmp_path / "c.csv").write_text("loss,params_total\n3,1e8\n")
    together = load_table(str(tmp_path / "[ab].csv"))
    assert together["file"].to_list() == ["a.csv", "b.csv"]
    table = load_table([tmp_path / "a.csv", tmp_path / "c.csv"], where=["file = 'c.csv'"])
    assert table["params_total"].to_list() == [1e8]
    with pytest.raises(InputError, match="no such file"):
        load_table(str(tmp_path / "*.parquet"))


def test_workbooks(tmp_path) -> None:
    main = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
    cells = (
        '<row r="1"><c r="A1" t="s"><v>0</v></c><c r="B1" t="inlineStr"><is><t>router</t></is></c></row>'
        '<row r="2"><c r="A2"><v>3.5</v></c><c r="B2" t="s"><v>1</v></c></row><row r="3"><c r="A3"><v>2</v></c></row>'
    )
    path = tmp_path / "runs.xlsx"
    with zipfile.ZipFile(path, "w") as book:
        book.writestr("xl/worksheets/sheet1.xml", f"<worksheet {main}><sheetData>{cells}</sheetData></worksheet>")
        book.writestr("xl/sharedStrings.xml", f"<sst {main}><si><t> loss</t></si><si><t>top</t></si></sst>")
    assert load_table(path).to_dict(as_series=False) == {"loss": [3.5, 2.0], "router": ["top", None]}
    path.write_bytes(b"nothing")
    with pytest.raises(InputError, match="no readable workbook"):
        load_table(path)


def test_runs_kept_by_wandb(tmp_path) -> None:
    for k in range(2):
        files = tmp_path / f"run-2026-{k}" / "files"
        files.mkdir(parents=True)
        (files / "config.yaml").write_text(
            f"wandb_version: 1\nlr:\n  desc: null\n  value: {k + 1}\n_wandb:\n  value: {{}}\n"
        )
        (files / "wandb-summary.json").write_text(json.dumps({"loss": 3.5 - k, "_wandb": {"runtime": 3}}))
    found = load_table(tmp_path).to_dict(as_series=False)
    assert found == {"run": ["run-2026-0", "run-2026-1"], "lr": [1.0, 2.0], "loss": [3.5, 2.5]}
