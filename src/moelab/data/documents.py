"""From sources to documents: exact de-duplication, scarce sources cut in pieces, large ones held to a share.

Texts are spooled to one temporary file and the documents' places to others, so memory grows neither with the text nor
with the number of documents. Every choice (what a capped source keeps, what is held out, what comes first) follows a
seeded hash of the document's content: it depends neither on the order of files nor on the machine.
"""

import codecs
import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import numpy as np

from moelab.data.ledger import (
    Document,
    Ledger,
    by_rank,
    digest_of,
    documents_of,
    first_of_each,
    in_order,
)
from moelab.data.progress import Report, no_report
from moelab.data.readers import BadText, Skips, Text
from moelab.data.sources import Source
from moelab.errors import InputError

FEWEST_DOCUMENTS = 20
"""A source with fewer documents is cut at blank lines, so that some of it can be held out."""
MOST_SEEN = 1 << 20
"""Digests of documents that are held in memory; duplicates of later ones are found by sorting."""
_WINDOW = 1 << 20


@dataclass
class Spool:
    """The texts of all sources in one file, and where each de-duplicated document lies in it.

    `folder` is where temporary files go. `skips` are the rows of each source that were left out.
    """

    folder: Path
    documents: Ledger
    duplicates: int = 0
    skips: list[Skips] = field(default_factory=list)
    _file: int = -1

    @property
    def path(self) -> Path:
        return self.folder / "spool"

    def read(self, start: int, length: int) -> bytes:
        """Bytes of the spool file. (Through a memory map they would count as this process' memory.)"""
        if self._file < 0:
            self._file = os.open(self.path, os.O_RDONLY)
        return os.pread(self._file, length, start)

    def texts(self, documents: Iterable[Document]) -> Iterator[str]:
        """The text of each document, in the given order."""
        for document in documents:
            yield self.read(document.start, document.length).decode()

    def parts(self, document: Document, longest: int) -> Iterator[str]:
        """A document's text in parts of at most `longest` characters, cut before the end of a line where there is one.

        Only a document of more than `longest` bytes is cut.
        """
        if document.length <= longest:
            yield self.read(document.start, document.length).decode()
            return
        decoder = codecs.getincrementaldecoder("utf-8")()
        text = ""
        for begin in range(0, document.length, _WINDOW):
            text += decoder.decode(self.read(document.start + begin, min(_WINDOW, document.length - begin)))
            while len(text) > longest:
                end = text.rfind("\n", 1, longest)
                end = end if end > 0 else longest
                yield text[:end]
                text = text[end:]
        yield text

    def new_ledger(self, name: str) -> Ledger:
        """An empty list of documents in a file of its own."""
        return Ledger(self.folder / name, len(self.documents.count))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


class _Seen:
    """The digests of the documents so far, up to MOST_SEEN of them."""

    def __init__(self) -> None:
        self._digests: set[bytes] = set()
        self.overflowed = False

    def add(self, digest: bytes) -> bool:
        """Whether this digest came before; remembers it."""
        if digest in self._digests:
            return True
        if len(self._digests) < MOST_SEEN:
            self._digests.add(digest)
        else:
            self.overflowed = True
        return False


def collect(
    sources: list[Source],
    folder: Path,
    seed: int,
    report: Report = no_report,
    enough_bytes: int | None = None,
    skip_bad: bool = False,
) -> Spool:
    """Read every source into a spool in `folder`, dropping exact duplicates.

    `enough_bytes`: where to stop reading a streamed source. `skip_bad`: leave out and count what cannot be used.
    Raises InputError for a source without text.
    """
    spool = Spool(folder, Ledger(folder / "read", len(sources)))
    seen = _Seen()
    end = 0
    with open(spool.path, "wb") as stream:
        for index, source in enumerate(sources):
            skips = Skips(skip_bad)
            spool.skips.append(skips)
            end, duplicates = _read_source(
                source, index, stream, end, spool.documents, seen, skips, report, enough_bytes
            )
            spool.duplicates += duplicates
            if not spool.documents.count[index]:
                earlier = " that is not in an earlier source" if len(spool.documents) else ""
                bad = f" ({skips.count} rows cannot be used: {skips.examples[0]})" if skips.count else ""
                raise InputError(f"source: {source.name} holds no text{earlier}{bad}")
    if seen.overflowed:
        everything = spool.documents
        spool.documents = spool.new_ledger("fresh")
        spool.duplicates += first_of_each(everything, spool.documents, folder)
    if any(count < FEWEST_DOCUMENTS for count in spool.documents.count):
        spool.documents = _cut_scarce(spool)
    if any(source.max_share is not None for source in sources):
        spool.documents = _cap(spool, sources, seed)
    return spool


def _read_source(
    source: Source,
    index: int,
    stream: BinaryIO,
    begin: int,
    ledger: Ledger,
    seen: _Seen,
    skips: Skips,
    report: Report,
    enough_bytes: int | None,
) -> tuple[int, int]:
    """Append a source's documents to the spool, from its byte `begin`, and to the ledger. Returns where the spool ends
    then, and the number of duplicates."""
    place = begin
    duplicates = 0
    for number, text in enumerate(source.read(skips), 1):
        if isinstance(text, bytes):
            length, digest = len(text), digest_of(text)
        else:
            found = _write_long(text, stream, place, skips)
            if found is None:
                continue
            length, digest = found
        if seen.add(digest):
            duplicates += 1
            if not isinstance(text, bytes):  # it has been written already
                stream.seek(place)
            continue
        ledger.append(Document(index, place, length, digest))
        if isinstance(text, bytes):
            stream.write(text)
        place += length
        if number % 1000 == 0:
            report(f"read {source.name}", place - begin, 0)
        if source.streamed and enough_bytes is not None and place - begin >= enough_bytes:
            break
    stream.truncate(place)
    done = max(place - begin, 1)
    report(f"read {source.name}", done, done)
    return place, duplicates


def _write_long(parts: Text, stream: BinaryIO, place: int, skips: Skips) -> tuple[int, bytes] | None:
    """Write a text that comes in parts at `place`: its length and digest; None where it is blank or cannot be used."""
    digest = hashlib.blake2b(digest_size=16)
    length, blank = 0, True
    try:
        for part in parts:
            assert isinstance(part, bytes)
            stream.write(part)
            digest.update(part)
            length += len(part)
            blank = blank and not part.decode().strip()
    except BadText as error:
        if not skips.allowed:
            raise
        skips.refuse(str(error).removeprefix("source: "))
        blank = True
    if blank:
        stream.seek(place)
        return None
    return length, digest.digest()


def _cut_scarce(spool: Spool) -> Ledger:
    """Cut the documents of sources that have few into pieces of 1-64 KiB, preferably at blank lines."""
    old, result = spool.documents, spool.new_ledger("cut")
    scarce = [source for source, count in enumerate(old.count) if count < FEWEST_DOCUMENTS]
    few: list[Document] = []
    for block in old.blocks():
        of_few = np.isin(block["source"], scarce)
        result.extend(block[~of_few])
        few.extend(documents_of(block[of_few]))
    for source in scarce:
        size = min(max(old.bytes[source] // 100, 1 << 10), 1 << 16)
        seen = _Seen()
        for document in few:
            if document.source == source:
                for piece in _pieces(spool, document, size):
                    if not seen.add(piece.digest):
                        result.append(piece)
    return result


def _pieces(spool: Spool, document: Document, size: int) -> Iterator[Document]:
    start = 0
    while start < document.length:
        content = spool.read(document.start + start, min(2 * size + 4, document.length - start))
        end = _cut_point(content, size)
        if content[:end].strip():
            yield Document(document.source, document.start + start, end, digest_of(content[:end]))
        start += end


def _cut_point(content: bytes, size: int) -> int:
    """Where the first piece of this text ends: after a blank line, else a line, else between characters."""
    if size >= len(content):
        return len(content)
    for mark in (b"\n\n", b"\n", b" "):
        found = content.find(mark, size, 2 * size)
        if found >= 0:
            return found + len(mark)
    end = min(2 * size, len(content))
    while end < len(content) and content[end] & 0xC0 == 0x80:
        end += 1
    return end


def _cap(spool: Spool, sources: list[Source], seed: int) -> Ledger:
    """Hold sources with a `max_share` to that share of the bytes of all (uncapped and capped) text."""
    old, result = spool.documents, spool.new_ledger("capped")
    capped = {index: source.max_share for index, source in enumerate(sources) if source.max_share is not None}
    free_bytes = sum(size for index, size in enumerate(old.bytes) if index not in capped)
    total = free_bytes / (1 - sum(capped.values()))
    left = {index: share * total for index, share in capped.items()}
    for block in old.blocks():
        result.extend(block[~np.isin(block["source"], list(capped))])
    limited = (block[np.isin(block["source"], list(capped))] for block in old.blocks())
    count = sum(old.count[index] for index in capped)
    for block in in_order(limited, count, by_rank(seed, "cap"), 2.0**64, spool.folder):
        keep = np.zeros(len(block), dtype=bool)
        for row, (index, length) in enumerate(zip(block["source"].tolist(), block["length"].tolist(), strict=True)):
            if length <= left[index]:
                left[index] -= length
                keep[row] = True
        result.extend(block[keep])
    return result
