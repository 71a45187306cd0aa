"""Tables of text: CSV with other separators, decimal commas, encodings and lines of comment before its header."""

import codecs
import csv
import io
import re
from pathlib import Path

import polars as pl

from moelab.printable import short

SEPARATORS = (",", ";", "\t", "|")
_ENCODINGS = (
    (codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF32_LE, "utf-32-le"), (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"),
)  # fmt: skip
LONGEST_HEADER = 100_000
"""Bytes of a header that is read name by name."""
_SEP = re.compile(rb"sep=(.)\s*\Z", re.IGNORECASE)
_DECIMAL_COMMA = r"^[+-]?\d+(,\d+)?([eE][+-]?\d+)?$"


def utf8(content: bytes) -> bytes:
    """A text as UTF-8 without its byte-order mark, which names UTF-16 and UTF-32. Raises ValueError naming the line and
    column of a byte that is no such text."""
    mark, encoding = next((each for each in _ENCODINGS if content.startswith(each[0])), (b"", "utf-8"))
    content = content[len(mark) :]
    try:
        return content.decode(encoding).encode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        column = error.start - content.rfind(b"\n", 0, error.start)
        raise ValueError(
            f"line {line} is not {encoding.upper()} text (byte {column}: 0x{content[error.start]:02x}); save the file "
            "as UTF-8"
        ) from None


def without_comments(content: bytes, usual: str) -> tuple[bytes, str, int]:
    """The table without what stands before its header, the usual separator, and how many lines were left out.

    Lines that begin with # are comments, but one of as many names as the numbers below it is the header, as NumPy
    writes it. A first line sep=; names the separator, as spreadsheets write it.
    """
    lines, skipped = content.splitlines(keepends=True), 0
    if lines and (named := _SEP.match(lines[0])):
        usual, skipped = named[1].decode("latin-1"), 1
    while skipped < len(lines) and (not lines[skipped].strip() or lines[skipped].lstrip().startswith(b"#")):
        skipped += 1
    if not skipped:
        return content, usual, 0
    last = lines[skipped - 1].lstrip() if skipped else b""
    below = lines[skipped].decode("utf-8", "replace") if skipped < len(lines) else ""
    if last.startswith(b"#") and _are_numbers(below, usual):
        names = last.lstrip(b"# \t")
        separator = separator_of(below, usual)
        if len(names.decode("utf-8", "replace").split(separator)) == len(below.split(separator)) > 1:
            return names + b"".join(lines[skipped:]), usual, skipped - 1
    return b"".join(lines[skipped:]), usual, skipped


def _are_numbers(line: str, usual: str) -> bool:
    for cell in line.strip().split(separator_of(line, usual)):
        try:
            float(cell)
        except ValueError:
            return False
    return True


def separator_of(header: str, usual: str) -> str:
    """What separates the names of a header: the usual separator, unless it has none of those and some of another."""
    names = re.sub(r'"[^"]*"', "", header)
    counts = {separator: names.count(separator) for separator in SEPARATORS}
    best = max(counts, key=lambda separator: counts[separator])
    return usual if counts[usual] or not counts[best] else best


def header_width(path: str | Path, usual: str = ",") -> int:
    """How many columns the header of a text file names, without reading the rows below it.

    Names in quotes may hold separators; of a header of more than `LONGEST_HEADER` bytes those count, too.
    """
    content, usual, _ = without_comments(_first_lines(Path(path)), "\t" if Path(path).suffix == ".tsv" else usual)
    header = content.split(b"\n", 1)[0]
    separator = separator_of(header[:LONGEST_HEADER].decode("utf-8", "replace"), usual)
    if len(header) > LONGEST_HEADER:
        return header.count(separator.encode()) + 1
    text = header.decode("utf-8", "replace").replace("\r", " ")  # within a line it ends none, and csv refuses it
    return len(next(csv.reader([text], delimiter=separator), []))


def _first_lines(path: Path) -> bytes:
    """The lines of comment before a header, the header, and the line below it, as UTF-8; bytes that are no text stand
    as they are. A file in another encoding is read whole."""
    lines, wanted = [], 2
    with open(path, "rb") as stream:
        mark = stream.read(4)
    for start, encoding in _ENCODINGS:
        if mark.startswith(start) and encoding != "utf-8":
            return path.read_bytes()[len(start) :].decode(encoding, "replace").encode()
    with open(path, "rb") as stream:
        for line in stream:
            lines.append(line)
            wanted -= bool(line.strip()) and not line.lstrip().startswith(b"#")
            if not wanted:
                break
    return b"".join(lines).removeprefix(codecs.BOM_UTF8)


def parse_csv(content: bytes, usual: str) -> pl.DataFrame:
    """The table of a CSV file's content in UTF-8. Names lose the blanks around them; behind another separator than a
    comma, 3,5 is a number. Raises ValueError naming the first line with another number of fields than the header."""
    content, usual, skipped = without_comments(content, usual)
    content = _tabs(content)
    header = content.split(b"\n", 1)[0].decode("utf-8", "replace")
    separator = separator_of(header, usual)
    if header.strip() and _are_numbers(header, usual):
        raise ValueError(f"line {skipped + 1} holds numbers where the names of columns are expected")
    try:
        table = pl.read_csv(io.BytesIO(content), separator=separator, infer_schema_length=None)
    except pl.exceptions.ComputeError:
        check_fields(content, separator, skipped)
        raise
    if table.width > 1:
        table = table.filter(~pl.all_horizontal(pl.all().is_null()))  # blank lines
    stripped = [name.strip() for name in table.columns]
    if len(set(stripped)) == len(stripped):
        table.columns = stripped
    return table if separator == "," else _decimal_points(table)


def _tabs(content: bytes) -> bytes:
    """A table whose columns blanks separate, with tabs for them: no usual separator, as many words in every line."""
    lines = content.splitlines()
    if len(lines) < 2 or any(separator.encode() in lines[0] for separator in SEPARATORS) or b'"' in content:
        return content
    words = [line.split() for line in lines]
    counts = {len(each) for each in words if each}
    return b"\n".join(b"\t".join(each) for each in words) if len(counts) == 1 and counts.pop() > 1 else content


def check_fields(content: bytes, separator: str, skipped: int = 0) -> None:
    """Raises ValueError naming the first line that has more fields than the header names columns; `skipped` lines of
    the file stand before it."""
    reader = csv.reader(io.StringIO(content.decode("utf-8", "replace")), delimiter=separator)
    header: list[str] = next(reader, [])
    for fields in reader:
        if len(fields) > len(header):
            raise ValueError(
                f"line {reader.line_num + skipped} has {len(fields)} fields, the header names {len(header)} columns: "
                f"{short(separator.join(fields))}"
            )


def _decimal_points(table: pl.DataFrame) -> pl.DataFrame:
    """Columns of text that are numbers with decimal commas, with points."""
    found = []
    for name in table.columns:
        if table[name].dtype != pl.String:
            continue
        bare = table[name].str.strip_chars()
        given = bare.filter(bare.is_not_null() & (bare != ""))
        if len(given) and given.str.contains(_DECIMAL_COMMA).all():
            found.append(bare.str.replace(",", ".", literal=True).alias(name))
    return table.with_columns(found)


def with_file(table: pl.DataFrame, path: Path) -> pl.DataFrame:
    """The table with its file's name as the column `file`, unless it has one."""
    return table if "file" in table.columns else table.with_columns(pl.lit(path.name).alias("file"))
