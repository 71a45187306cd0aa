"""From sources to documents: exact de-duplication, a validation split by document, and one order for everything.

Texts are spooled to one temporary file, so memory holds a few dozen bytes per document and not the text itself. Every
choice (what to hold out, what a capped source keeps, which document comes first) follows a seeded hash of the
document's content: it depends neither on the order of files nor on the machine.
"""

import hashlib
import mmap
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from moelab.data.progress import Report, silent
from moelab.data.sources import Source
from moelab.errors import InputError

FEWEST_DOCUMENTS = 20
"""A source with fewer documents is cut at blank lines, so that some of it can be held out."""
MOST_VALIDATION_BYTES = 8 << 20
"""No source holds out more than this: beyond it a loss is known precisely enough."""


@dataclass(frozen=True, slots=True)
class Document:
    """A stretch of the spool file: the source's index, first byte, length in bytes, digest of the content."""

    source: int
    start: int
    length: int
    digest: bytes

    def rank(self, seed: int, purpose: str) -> bytes:
        """A number, as bytes, that shuffles documents: different for each seed and purpose."""
        key = f"{purpose}:{seed}".encode()
        return hashlib.blake2b(self.digest, digest_size=8, key=hashlib.sha256(key).digest()).digest()


@dataclass
class Spool:
    """The de-duplicated documents of all sources; `text(document)` reads one back."""

    path: Path
    documents: list[Document] = field(default_factory=list)
    duplicates: int = 0

    def texts(self, documents: list[Document]) -> Iterator[str]:
        """The text of each document, in the given order."""
        if documents:
            with open(self.path, "rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
                for document in documents:
                    yield content[document.start : document.start + document.length].decode()


def collect(
    sources: list[Source], path: Path, seed: int, report: Report = silent, enough_bytes: int | None = None
) -> Spool:
    """Read every source into the spool at `path`, dropping empty documents and exact duplicates.

    `enough_bytes`: where to stop reading a streamed source. Raises InputError for a source without text.
    """
    spool = Spool(path)
    seen: set[bytes] = set()
    with open(path, "wb") as stream:
        for index, source in enumerate(sources):
            found = _read_source(source, index, stream, spool, seen, report, enough_bytes)
            if not found:
                earlier = " that is not in an earlier source" if spool.documents else ""
                raise InputError(f"source: {source.name} holds no text{earlier}")
            spool.documents.extend(found)
    if any(len(_of(spool, index)) < FEWEST_DOCUMENTS for index in range(len(sources))):
        spool.documents = _cut_scarce(spool, len(sources))
    spool.documents = _cap(spool.documents, sources, seed)
    return spool


def _read_source(
    source: Source,
    index: int,
    stream: BinaryIO,
    spool: Spool,
    seen: set[bytes],
    report: Report,
    enough_bytes: int | None,
) -> list[Document]:
    found: list[Document] = []
    begin = stream.tell()
    for text in source.read():
        if not text.strip():
            continue
        try:
            content = text.encode()
        except UnicodeEncodeError:
            raise InputError(f"source: {source.name} has a text that is not valid Unicode: {text[:40]!r}") from None
        digest = hashlib.blake2b(content, digest_size=16).digest()
        if digest in seen:
            spool.duplicates += 1
            continue
        seen.add(digest)
        found.append(Document(index, stream.tell(), len(content), digest))
        stream.write(content)
        if len(found) % 1000 == 0:
            report(f"read {source.name}", stream.tell() - begin, 0)
        if source.streamed and enough_bytes is not None and stream.tell() - begin >= enough_bytes:
            break
    done = max(stream.tell() - begin, 1)
    report(f"read {source.name}", done, done)
    return found


def _of(spool: Spool, source: int) -> list[Document]:
    return [document for document in spool.documents if document.source == source]


def _cut_scarce(spool: Spool, n_sources: int) -> list[Document]:
    """Cut the documents of sources that have few into pieces of 1-64 KiB, preferably at blank lines."""
    result: list[Document] = []
    for index in range(n_sources):
        own = _of(spool, index)
        if len(own) < FEWEST_DOCUMENTS:
            size = min(max(sum(document.length for document in own) // 100, 1 << 10), 1 << 16)
            texts = spool.texts(own)
            own = [part for document, text in zip(own, texts, strict=True) for part in _pieces(document, text, size)]
            own = list({document.digest: document for document in own}.values())
        result.extend(own)
    return result


def _pieces(document: Document, text: str, size: int) -> Iterator[Document]:
    content = text.encode()
    start = 0
    while start < len(content):
        end = _cut_point(content, start, size)
        piece = content[start:end]
        if piece.strip():
            digest = hashlib.blake2b(piece, digest_size=16).digest()
            yield Document(document.source, document.start + start, end - start, digest)
        start = end


def _cut_point(content: bytes, start: int, size: int) -> int:
    """Where the piece that begins at `start` ends: after a blank line, else a line, else between characters."""
    if start + size >= len(content):
        return len(content)
    for mark in (b"\n\n", b"\n", b" "):
        found = content.find(mark, start + size, start + 2 * size)
        if found >= 0:
            return found + len(mark)
    end = min(start + 2 * size, len(content))
    while end < len(content) and content[end] & 0xC0 == 0x80:
        end += 1
    return end


def _cap(documents: list[Document], sources: list[Source], seed: int) -> list[Document]:
    """Hold sources with a `max_share` to that share of the bytes of all (uncapped and capped) text."""
    capped = {index: source.max_share for index, source in enumerate(sources) if source.max_share is not None}
    if not capped:
        return documents
    free_bytes = sum(document.length for document in documents if document.source not in capped)
    total = free_bytes / (1 - sum(capped.values()))
    result = [document for document in documents if document.source not in capped]
    for index, share in capped.items():
        left = share * total
        own = [document for document in documents if document.source == index]
        for document in sorted(own, key=lambda document: document.rank(seed, "cap")):
            if document.length <= left:
                left -= document.length
                result.append(document)
    return result


def split(documents: list[Document], share: float, seed: int) -> tuple[list[Document], list[Document]]:
    """Training and validation documents: of every source, those of lowest rank up to `share` of its bytes.

    At least one document of each source is held out, and at least one is kept to train on. Raises InputError where a
    source has a single document.
    """
    training: list[Document] = []
    validation: list[Document] = []
    for source in sorted({document.source for document in documents}):
        own = sorted(
            (document for document in documents if document.source == source),
            key=lambda document: document.rank(seed, "validation"),
        )
        target = min(share * sum(document.length for document in own), MOST_VALIDATION_BYTES)
        held = _lowest(own, target)
        chosen = {document.start for document in held}
        kept = [document for document in own if document.start not in chosen]
        if not kept:
            raise InputError("source: too little text to hold some out; give at least two kilobytes")
        training.extend(kept)
        validation.extend(held)
    return training, validation


def _lowest(ranked: list[Document], target: float) -> list[Document]:
    """Documents from the front whose lengths add up to about `target`; one that would overshoot far is skipped."""
    held: list[Document] = []
    total = 0
    for document in ranked:
        if total >= target:
            break
        if total + document.length <= 1.5 * target:
            held.append(document)
            total += document.length
    return held or [min(ranked, key=lambda document: document.length)]


def mix(documents: list[Document], seed: int) -> list[Document]:
    """The one order: shuffled within each source, and sources woven so that every prefix has the same mixture.

    So the first U tokens are a fair sample of the corpus for every U, and a smaller subset is part of a larger one.
    """
    totals: dict[int, int] = {}
    for document in documents:
        totals[document.source] = totals.get(document.source, 0) + document.length
    placed: list[tuple[float, int, Document]] = []
    before = dict.fromkeys(totals, 0)
    for document in sorted(documents, key=lambda document: document.rank(seed, "order")):
        middle = (before[document.source] + document.length / 2) / totals[document.source]
        before[document.source] += document.length
        placed.append((middle, document.source, document))
    placed.sort(key=lambda entry: entry[:2])
    return [document for _, _, document in placed]
