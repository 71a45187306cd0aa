"""Which documents of a spool are kept: scarce sources are cut in pieces, large ones held to their share."""

from collections.abc import Iterator

import numpy as np

from moelab.data.ledger import Document, Ledger, Seen, by_rank, digest_of, documents_of, in_order
from moelab.data.sources import Source
from moelab.data.spool import Spool

FEWEST_DOCUMENTS = 20
"""A source with fewer documents is cut at blank lines, so that some of it can be held out."""


def cut_scarce(spool: Spool) -> Ledger:
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
        seen = Seen()
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


def cap_sources(spool: Spool, sources: list[Source], seed: int) -> Ledger:
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
