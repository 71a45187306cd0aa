"""Tables of JSON lines, or of one JSON list: every row is read strictly, and named by its line where it is wrong."""

import gzip
import io
import json
import math
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from moelab.errors import InputError
from moelab.files import MOST_NESTED
from moelab.printable import short
from moelab.runs.json_rows import flat, rows_of, table_of
from moelab.runs.text_tables import utf8

MOST_DIGITS = 38
"""Digits of a whole number: more do not fit in 128 bits, and no run counts so far."""
_TEXT = re.compile(rb'"(?:[^"\\]|\\.)*+"?')
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_BLANK = re.compile(r"[ \t\r\n]*")
_BETWEEN = re.compile(r"[ \t\r\n]*(,|\]|\Z)[ \t\r\n]*")


def read_json_table(path: Path, *, lines: bool) -> pl.DataFrame:
    """The table of a JSON file, plain or compressed: a row a line, or with `lines` false one list of rows, or one of
    pandas' layouts. NaN is missing; nested fields are columns of dotted names.

    Raises InputError for rows nested too deeply, ValueError naming the line that is not JSON, names a key twice, or
    holds a number that no 64-bit float can.
    """
    return table_of(_rows(path, lines))


def json_size(path: Path, *, lines: bool) -> tuple[int, int]:
    """How many rows and columns the table of a JSON file has, without making it: a column costs more than its text.

    Raises as `read_json_table` does.
    """
    rows, names = _rows(path, lines), set[str]()
    for row in rows:
        names.update(flat(row))
    return len(rows), len(names)


def _rows(path: Path, lines: bool) -> list[Any]:
    content = utf8(unpacked(path))
    _check_depth(content, path)
    rows = []
    for number, row in _rows_of_lines(content) if lines else _rows_of_list(content):
        if not isinstance(row, dict):
            raise ValueError(f"line {number}: expected columns and values in braces, got {short(row)}")
        rows.append(row)
    if not lines and len(rows) == 1 and (laid_out := rows_of(rows[0])) is not None:
        rows = laid_out
    if not rows:
        raise pl.exceptions.NoDataError("no rows")
    return rows


def unpacked(path: Path) -> bytes:
    """A file's content, unpacked where its name ends in .gz or .zst. Raises InputError without the package for zst."""
    content = path.read_bytes()
    if path.suffix == ".gz":
        return gzip.decompress(content)
    if path.suffix != ".zst":
        return content
    try:
        import zstandard
    except ImportError:
        raise InputError(f"runs: {path} needs the package zstandard: pip install zstandard") from None
    try:
        with zstandard.ZstdDecompressor().stream_reader(io.BytesIO(content)) as stream:
            return bytes(stream.read())
    except zstandard.ZstdError as error:
        raise ValueError(str(error)) from None


def _check_depth(content: bytes, path: Path) -> None:
    """Raises InputError for deep nesting: on hundreds of levels polars crashes."""
    brackets = _TEXT.sub(b"", content).translate(None, _NO_BRACKETS)
    steps = np.where(np.isin(np.frombuffer(brackets, np.uint8), np.frombuffer(b"[{", np.uint8)), 1, -1)
    if steps.size and np.cumsum(steps).max() > MOST_NESTED:
        raise InputError(f"runs: {path} is nested deeper than {MOST_NESTED} levels")


def _rows_of_lines(content: bytes) -> Iterator[tuple[int, Any]]:
    """Line number and row of each line that is not blank."""
    for number, line in enumerate(content.split(b"\n"), 1):
        if not line.isspace() and line:
            yield number, _decode(line.decode(), number)


def _rows_of_list(content: bytes) -> Iterator[tuple[int, Any]]:
    """Number of its first line and row of each row in a list; a file of one row stands for a list of it."""
    text = content.decode()
    place = _BLANK.match(text).end()  # type: ignore[union-attr]
    if not text.startswith("[", place):
        if text:
            yield 1, _decode(text, 1)
        return
    place = _BLANK.match(text, place + 1).end()  # type: ignore[union-attr]
    line = 1 + text.count("\n", 0, place)
    while not text.startswith("]", place):
        try:
            row, end = _DECODER.raw_decode(text, place)
        except (ValueError, StopIteration) as error:
            raise _named(error, line, alone=False) from None
        yield line, row
        separator = _BETWEEN.match(text, end)
        if separator is None or separator[1] == "":
            raise ValueError(f"line {line + text.count(chr(10), place, end)} is not JSON: expected , or ] after a row")
        if separator[1] == "]":
            return
        line += text.count("\n", place, separator.end())
        place = separator.end()


def _decode(text: str, line: int) -> Any:
    try:
        return _DECODER.decode(text)
    except ValueError as error:
        raise _named(error, line, alone=True) from None


def _named(error: Exception, line: int, *, alone: bool) -> ValueError:
    """The error with the line it is in; a row that was read `alone` counts its own lines from 1."""
    if isinstance(error, json.JSONDecodeError):
        number = line + error.lineno - 1 if alone else error.lineno
        return ValueError(f"line {number} is not JSON: {error.msg}")
    return ValueError(f"line {line} {error or 'is not JSON'}")


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) < len(pairs):
        twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"names the key {short(twice)} twice")
    return row


def _whole(digits: str) -> int:
    if len(digits.lstrip("-")) > MOST_DIGITS:
        raise ValueError(f"holds a whole number of {len(digits.lstrip('-')):,} digits; at most {MOST_DIGITS}, or 1e39")
    return int(digits)


def _real(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"holds {short(text)[1:-1]}, beyond the largest 64-bit float")
    return value


def _constant(name: str) -> None:
    """None for NaN, which Python writes for a missing number."""
    if name == "NaN":
        return
    raise ValueError(f"holds {name}, which is no JSON number; write null for a missing one")


_DECODER = json.JSONDecoder(object_pairs_hook=_each_once, parse_int=_whole, parse_float=_real, parse_constant=_constant)
