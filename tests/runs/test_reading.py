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


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_encodings_with_a_mark(encoding, tmp_path) -> None:
    mark = "\ufeff" if encoding == "utf-16-le" else ""
    for name, text in (("a.csv", "loss,note\n3.5,café\n"), ("b.jsonl", '{"loss": 3.5, "note": "café"}\n')):
        (tmp_path / name).write_bytes((mark + text).encode(encoding))
        assert load_table(tmp_path / name).to_dict(as_series=False) == {"loss": [3.5], "note": ["café"]}


@pytest.mark.parametrize("name", ["a.csv", "b.jsonl"])
def test_other_encodings_are_refused_with_the_line(name, tmp_path) -> None:
    text = {"a.csv": "loss,note\n3.5,a\n3.4,café\n", "b.jsonl": '{"loss": 3.5}\n{"loss": 3}\n{"note": "é"}\n'}[name]
    (tmp_path / name).write_bytes(text.encode("latin-1"))
    message = rf"{name}: line 3 is not UTF-8 text \(byte \d+: 0xe9\); save the file as UTF-8"
    with pytest.raises(InputError, match=message):
        load_table(tmp_path / name)


@pytest.mark.parametrize(
    "before",
    [
        "# my runs\nloss,tokens\n",
        "\n# my runs, two of them\n#\nloss,tokens\n",
        "# saved by NumPy\n# loss,tokens\n",
        "sep=,\nloss,tokens\n",
        "SEP=;\nloss;tokens\n",
        "sep=|\nloss|tokens\n",
    ],
)
def test_lines_before_the_header(before, tmp_path) -> None:
    mark = before.strip()[-7]
    (tmp_path / "runs.txt").write_text(f"{before}3.5{mark}1e9\n3.4{mark}2e9\n\n{mark}\n")
    assert load_table(tmp_path / "runs.txt").to_dict(as_series=False) == {"loss": [3.5, 3.4], "tokens": [1e9, 2e9]}
    (tmp_path / "runs.csv").write_text(f"{before}3.5{mark}1e9\n3.5{mark}1e9{mark}7\n")
    line = before.count("\n") + 2
    with pytest.raises(InputError, match=f"line {line} has 3 fields, the header names 2 columns"):
        load_table(tmp_path / "runs.csv")
    (tmp_path / "runs.csv").write_text(f"# none of these is a name\n3.5{mark}1e9\n")
    with pytest.raises(InputError, match="line 2 holds numbers where the names of columns are expected"):
        load_table(tmp_path / "runs.csv")


def test_frames_and_columns_are_tables_too() -> None:
    columns = {"loss": [3.5, 3.4], "tokens": [1, 2]}
    for table in (columns, pl.DataFrame(columns)):
        found = load_table(table, let=["tokens = 1e9 * tokens"], where=["loss < 3.45"])
        assert found.to_dict(as_series=False) == {"loss": [3.4], "tokens": [2e9]}
    with pytest.raises(InputError, match="expected a file, a folder, a data frame or columns by name, got 3"):
        load_table(3)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="runs: "):
        load_table({"loss": [3.5], "tokens": [1, 2]})


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


def test_workbooks(tmp_path, capsys) -> None:
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
    title = '<row r="1"><c r="A1" t="inlineStr"><is><t>My runs</t></is></c></row>'
    office = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    package = "http://schemas.openxmlformats.org/package/2006/relationships"
    named, linked = "", ""
    with zipfile.ZipFile(path, "a") as book:
        for k, (name, part, rows) in enumerate(
            [("notes", "sheet3", title), ("runs", "sheet2", title + cells), ("old", "sheet1", "")]
        ):
            named += f'<sheet name="{name}" r:id="rId{k}"/>'
            linked += f'<Relationship Id="rId{k}" Target="/xl/worksheets/{part}.xml"/>'
            if rows:
                book.writestr(
                    f"xl/worksheets/{part}.xml", f"<worksheet {main}><sheetData>{rows}</sheetData></worksheet>"
                )
        book.writestr("xl/workbook.xml", f'<workbook {main} xmlns:r="{office}"><sheets>{named}</sheets></workbook>')
        book.writestr("xl/_rels/workbook.xml.rels", f'<Relationships xmlns="{package}">{linked}</Relationships>')
    for place in (path, f"{path}:runs", f"{path}:old"):
        assert load_table(place).to_dict(as_series=False) == {"loss": [3.5, 2.0], "router": ["top", None]}
    printed = capsys.readouterr().err
    assert printed.count("warning") == 1
    assert "the sheet 'runs' is read, not 'old' (runs.xlsx:old reads that one)" in printed
    with pytest.raises(InputError, match="has no sheet 'nope'; its sheets: 'notes', 'runs', 'old'"):
        load_table(f"{path}:nope")
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
    (tmp_path / "offline-run" / "files").mkdir(parents=True)
    (tmp_path / "offline-run" / "run-abc.wandb").write_bytes(b"")
    with pytest.raises(InputError, match=r"binary logs \(run-abc.wandb\) without wandb-summary.json"):
        load_table(tmp_path / "offline-run")


def test_columns_that_blanks_separate(tmp_path) -> None:
    (tmp_path / "runs.txt").write_text("params_total   tokens  loss\n1e8 2e9   3.5\n 2e8   4e9   3.2\n")
    table = load_table(tmp_path / "runs.txt")
    assert table.columns == ["params_total", "tokens", "loss"]
    assert table["loss"].to_list() == [3.5, 3.2]
