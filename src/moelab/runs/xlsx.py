"""A sheet of an Excel workbook (.xlsx, ECMA-376), read by the standard library: names in its first row."""

import re
import zipfile
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import polars as pl

from moelab.printable import short, warn

_MAIN = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"
_OF_OFFICE = "{http://schemas.openxmlformats.org/officeDocument/2006/relationships}"
_OF_PACKAGE = "{http://schemas.openxmlformats.org/package/2006/relationships}"
_MOST_BYTES = 500_000_000
"""Unpacked size of a sheet that is still read."""


def read_xlsx(path: Path, sheet: str | None = None) -> pl.DataFrame:
    """The table of the named sheet, else of the first with two columns and a row below their names; where others have
    one too, they are named on stderr. Raises ValueError for a damaged workbook or one that unpacks to too much."""
    try:
        with zipfile.ZipFile(path) as book:
            texts = _shared(book) if "xl/sharedStrings.xml" in book.namelist() else []
            places = _sheets(book)
            if sheet is not None and sheet not in places:
                raise ValueError(f"it has no sheet {short(sheet)}; its sheets: {', '.join(map(short, places))}")
            wanted = places if sheet is None else {sheet: places[sheet]}
            rows = {name: _rows(book, place, texts) for name, place in wanted.items()}
    except (zipfile.BadZipFile, ElementTree.ParseError, KeyError, IndexError) as error:
        raise ValueError(f"it is no readable workbook: {error}") from None
    tables = [name for name, found in rows.items() if len(found) > 1 and len(found[0]) > 1]
    chosen = tables[0] if tables else next((name for name, found in rows.items() if found), None)
    if chosen is None:
        raise ValueError("its sheets are empty" if sheet is None else f"its sheet {short(sheet)} is empty")
    if len(tables) > 1:
        others = ", ".join(map(short, tables[1:]))
        warn(f"{path}: the sheet {short(chosen)} is read, not {others} ({path.name}:{tables[1]} reads that one)")
    head, *below = rows[chosen]
    names = {column: str(name).strip() for column, name in head.items()}
    data = {name: [row.get(column) for row in below] for column, name in names.items()}
    return pl.DataFrame({name: _column(values) for name, values in data.items()})


def _sheets(book: zipfile.ZipFile) -> dict[str, str]:
    """The sheets' names with their places in the file, in the workbook's order."""
    parts = book.namelist()
    found = {}
    if {"xl/workbook.xml", "xl/_rels/workbook.xml.rels"} <= set(parts):
        links = _parse(book, "xl/_rels/workbook.xml.rels").iter(f"{_OF_PACKAGE}Relationship")
        places = {link.get("Id"): _place(link.get("Target", "")) for link in links}
        for each in _parse(book, "xl/workbook.xml").iter(f"{_MAIN}sheet"):
            place = places.get(each.get(f"{_OF_OFFICE}id"))
            if place in parts:  # a chart's sheet lies elsewhere and holds no cells
                found[each.get("name", "")] = str(place)
    if not found:
        sheets = [name for name in parts if re.fullmatch(r"xl/worksheets/sheet\d+\.xml", name)]
        found = {Path(name).stem: name for name in sorted(sheets, key=lambda name: int(re.sub(r"\D", "", name)))}
    if not found:
        raise ValueError("it holds no sheet")
    return found


def _place(target: str) -> str:
    return target.lstrip("/") if target.startswith("/") else f"xl/{target}"


def _rows(book: zipfile.ZipFile, place: str, texts: list[str]) -> list[dict[str, Any]]:
    """The rows that hold anything, each by column letters, from that of the names: a title alone in its row is none."""
    rows = [_cells(row, texts) for row in _parse(book, place).iter(f"{_MAIN}row")]
    rows = [row for row in rows if row]
    first = next((k for k, row in enumerate(rows) if len(row) > 1), 0)
    return rows[first:]


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
