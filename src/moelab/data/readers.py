"""The documents of one file: plain text, JSON lines or Parquet, plain or compressed, read in bounded memory.

Everything that cannot be used is named with its file and line (or row); whoever asks for it has such rows left out and
counted instead.
"""

import codecs
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Literal

from moelab.data.compressed import UNREADABLE, open_file, reason_of
from moelab.errors import InputError

Text = bytes | Iterator[bytes]
"""A document in UTF-8, whole or, where it is long, in parts."""
Kind = Literal["text", "lines", "parquet"]

TEXT_SUFFIXES = (".txt", ".text", ".md", ".rst")
LINE_SUFFIXES = (".jsonl", ".ndjson", ".json")
COMPRESSED = (".gz", ".zst")
SUFFIXES = (*TEXT_SUFFIXES, *LINE_SUFFIXES, ".parquet")
_ARCHIVES = (".tar", ".tgz", ".tzst", ".zip", ".7z", ".bz2", ".xz")
LONGEST_ROW = 32 << 20
"""Bytes of one line or row; a longer one is refused: a row is held in memory whole, a text file is not."""
_PART = 1 << 20
"""A text file longer than this is read in parts of this size."""
_SLICE = 16 << 20
"""Bytes of text of the Parquet rows that are held together."""


class BadText(InputError):
    """One row or text cannot be used; the message names its file and line."""


@dataclass
class Skips:
    """What becomes of rows that cannot be used: refused, or where `allowed` left out, counted, the first ones named."""

    allowed: bool = False
    count: int = 0
    examples: list[str] = field(default_factory=list)

    def refuse(self, message: str) -> None:
        """Count one row. Raises BadText where rows must not be left out."""
        if not self.allowed:
            raise BadText(f"source: {message}")
        self.count += 1
        if len(self.examples) < 3:
            self.examples.append(message)


def kind_of(path: Path) -> Kind | None:
    """How a file is read, by its name; None where the name is of no known kind."""
    name = path.name.lower()
    if name.endswith(".parquet"):
        return "parquet"
    stem = name.removesuffix(".gz").removesuffix(".zst")
    if stem.endswith(LINE_SUFFIXES):
        return "lines"
    if stem.endswith(TEXT_SUFFIXES):
        return "text"
    if name.endswith(COMPRESSED) and "." not in stem:
        return "lines" if holds_json_lines(path) else "text"
    return None


def holds_json_lines(path: Path) -> bool:
    """Whether the first line of a file that is not blank is a JSON object."""
    try:
        with open_file(path) as stream:
            for _, line in _lines(stream, path, Skips(allowed=True)):
                if line.strip():
                    return isinstance(json.loads(line), dict)
    except (*UNREADABLE, ValueError, RecursionError):
        pass
    return False


def read_file(path: Path, text_field: str = "text", skips: Skips | None = None) -> Iterator[Text]:
    """The documents of one file: lines of JSON lines, rows of Parquet, or a text file as one document.

    Raises BadText naming the file and the line that is not UTF-8, is too long or lacks the text field, unless `skips`
    allows to leave it out; InputError where the file cannot be read or needs a package that is not installed.
    """
    skips = Skips() if skips is None else skips
    kind = kind_of(path) or "text"
    if path.name.lower().removesuffix(".gz").removesuffix(".zst").endswith(_ARCHIVES):
        raise InputError(f"source: {path} is an archive; unpack it and name the folder")
    try:
        if kind == "parquet":
            yield from _parquet(path, text_field, skips)
        else:
            with open_file(path) as stream:
                yield from _json_lines(stream, path, text_field, skips) if kind == "lines" else _text(stream, path)
    except BadText as error:
        if not skips.allowed:
            raise
        skips.refuse(str(error).removeprefix("source: "))
    except UNREADABLE as error:
        skips.refuse(f"cannot read {path}: {reason_of(error)}")


def _lines(stream: BinaryIO, path: Path, skips: Skips) -> Iterator[tuple[int, bytes]]:
    """Number and content of each line; one of more than LONGEST_ROW bytes is refused without being held in memory."""
    number = 0
    while True:
        try:
            line = stream.readline(LONGEST_ROW + 1)
        except UNREADABLE as error:
            skips.refuse(f"cannot read {path} from line {number + 1} on: {reason_of(error)}")
            return
        if not line:
            return
        number += 1
        if len(line) > LONGEST_ROW:
            skips.refuse(f"{path} line {number} is longer than {LONGEST_ROW >> 20} MiB")
            while line and not line.endswith(b"\n"):
                line = stream.readline(_PART)
        elif b"\r" in line and b"\r" in line.rstrip():  # line ends of an old Macintosh
            for place, part in enumerate(line.splitlines()):
                yield number + place, part
            number += len(line.splitlines()) - 1
        else:
            yield number, line.removeprefix(codecs.BOM_UTF8) if number == 1 else line


def _json_lines(stream: BinaryIO, path: Path, text_field: str, skips: Skips) -> Iterator[Text]:
    for number, line in _lines(stream, path, skips):
        problem = None
        try:
            row = json.loads(line.decode(), parse_int=float)  # Python refuses whole numbers of thousands of digits
            text = row[text_field]
            if not isinstance(text, str):
                raise TypeError
            if text and not text.isspace():
                yield text.encode()
            continue
        except UnicodeDecodeError as error:
            problem = f"is not UTF-8 (byte {error.start + 1} of the line)"
        except UnicodeEncodeError as error:
            problem = f"has a text with a lone surrogate, {error.object[error.start]!r}, which is not valid Unicode"
        except json.JSONDecodeError as error:
            if not line.strip():
                continue
            problem = f"is not JSON: {error.msg} (one JSON object a line is expected)"
        except RecursionError:
            problem = "is nested too deeply to be read"
        except (KeyError, TypeError):
            problem = f"has no text in the field {text_field!r}"
        skips.refuse(f"{path} line {number} {problem}")


def _text(stream: BinaryIO, path: Path) -> Iterator[Text]:
    """The whole file as one document, line ends made uniform; a long one in parts."""
    start = stream.read(_PART)
    parts = _decoded(stream, start, path)
    if len(start) < _PART:
        content = b"".join(parts)
        if not blank(content):
            yield content
    else:
        yield parts


def _decoded(stream: BinaryIO, part: bytes, path: Path) -> Iterator[bytes]:
    """The file in UTF-8 with uniform line ends. Raises BadText naming the line of a byte that is not UTF-8."""
    decoder = io.IncrementalNewlineDecoder(codecs.getincrementaldecoder("utf-8-sig")(), translate=True)
    line = 1
    while True:
        following = stream.read(_PART) if part else b""
        try:
            text = decoder.decode(part, final=not following)
        except UnicodeDecodeError as error:
            line += error.object[: error.start].count(b"\n")
            raise BadText(f"source: {path} line {line} is not UTF-8 text") from None
        line += text.count("\n")
        if text:
            yield text.encode()
        if not following:
            return
        part = following


def blank(content: bytes) -> bool:
    """Whether a text holds nothing but white space."""
    return not content or ((content[0] <= 0x20 or content[0] >= 0x80) and not content.decode().strip())


def _parquet(path: Path, text_field: str, skips: Skips) -> Iterator[Text]:
    import polars

    try:
        columns = polars.read_parquet_schema(path)
        if text_field not in columns:
            raise InputError(f"source: {path} has no column {text_field!r} (columns: {', '.join(columns)})")
        if columns[text_field] not in (polars.String, polars.Categorical, polars.Enum):
            raise InputError(f"source: {path}: the column {text_field!r} holds {columns[text_field]}, not text")
        rows = polars.scan_parquet(path).select(polars.len()).collect().item()
        start, step = 0, 64
        while start < rows:
            chunk = polars.scan_parquet(path).select(text_field).slice(start, step).collect()
            size = 0
            for number, text in enumerate(chunk[text_field].cast(polars.String), start + 1):
                size += len(text or "")
                if text is None:
                    skips.refuse(f"{path} row {number} has no text in the column {text_field!r}")
                elif len(text) > LONGEST_ROW:
                    skips.refuse(f"{path} row {number} is longer than {LONGEST_ROW >> 20} MiB")
                elif text and not text.isspace():
                    yield text.encode()
            start += step
            step = min(max(_SLICE * step // max(size, 1), 1), 4 * step, 1 << 16)
    except polars.exceptions.PolarsError as error:
        skips.refuse(f"{path} is not a Parquet file: {' '.join(str(error).split())[:120]}")
