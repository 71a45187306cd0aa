"""The first sheet of an Excel workbook (.xlsx, ECMA-376), read by the standard library: names in its first row."""

import re
import zipfile
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import polars as pl

_MAIN = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"
_MOST_BYTES = 500_000_000
"""Unpacked size of a sheet that is still read."""


def read_xlsx(path: Path) -> pl.DataFrame:
    """The table of the first sheet. Raises ValueError for a damaged workbook or one that unpacks to too much."""
    try:
        with zipfile.ZipFile(path) as book:
            sheets = sorted(
                (name for name in book.namelist() if re.fullmatch(r"xl/worksheets/sheet\d+\.xml", name)),
                key=lambda name: int(re.sub(r"\D", "", name)),
            )
            if not sheets:
                raise ValueError("it holds no sheet")
            texts = _shared(book) if "xl/sharedStrings.xml" in book.namelist() else []
            rows = [_cells(row, texts) for row in _parse(book, sheets[0]).iter(f"{_MAIN}row")]
    except (zipfile.BadZipFile, ElementTree.ParseError, KeyError, IndexError) as error:
        raise ValueError(f"it is no readable workbook: {error}") from None
    rows = [row for row in rows if row]
    if not rows:
        raise ValueError("its first sheet is empty")
    names = {column: str(name).strip() for column, name in rows[0].items()}
    data = {name: [row.get(column) for row in rows[1:]] for column, name in names.items()}
    return pl.DataFrame({name: _column(values) for name, values in data.items()})


def _parse(book: zipfile.ZipFile, name: str) -> ElementTree.Element:
    if book.getinfo(name).file_size > _MOST_BYTES:
        raise ValueError(f"{name} unpacks to more than {_MOST_BYTES:,} bytes")
    content = book.read(name)
    if b"<!DOCTYPE" in content or b"<!ENTITY" in content:
        raise ValueError(f"{name} declares entities")
    return ElementTree.fromstring(content)


def _shared(book: zipfile.ZipFile) -> list[str]:
    items = _parse(book, "xl/sharedStrings.xml").iter(f"{_MAIN}si")
    return ["".join(text.text or "" for text in item.iter(f"{_MAIN}t")) for item in items]


def _cells(row: ElementTree.Element, texts: list[str]) -> dict[str, Any]:
    """Column letters -> what stands there."""
    found: dict[str, Any] = {}
    for place, cell in enumerate(row.iter(f"{_MAIN}c")):
        column = re.sub(r"\d", "", cell.get("r", "")) or str(place)
        kind, value = cell.get("t", "n"), cell.find(f"{_MAIN}v")
        if kind == "inlineStr":
            found[column] = "".join(text.text or "" for text in cell.iter(f"{_MAIN}t"))
        elif value is not None and value.text is not None:
            found[column] = texts[int(value.text)] if kind == "s" else _value(value.text, kind)
    return found


def _value(text: str, kind: str) -> Any:
    if kind == "b":
        return float(text == "1")
    return float(text) if kind == "n" else None if kind == "e" else text


def _column(values: list[Any]) -> pl.Series:
    texts = any(isinstance(value, str) for value in values)
    return pl.Series([None if v is None else str(v) if texts else v for v in values], strict=False)
