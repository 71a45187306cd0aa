"""Documents -> token files: texts are tokenized in parallel and appended in order, an end-of-text token after each."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from moelab.data.documents import Document, Spool
from moelab.data.progress import Report
from moelab.data.shards import ShardWriter
from moelab.data.tokenizer import encode, end_of_text_id, tokenizer_bytes

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_GROUP_BYTES = 1 << 20
"""Text tokenized together: enough to keep the cores busy, little enough to keep memory small."""
_LONGEST = 1 << 18
"""Longer documents are tokenized in pieces cut before a line end, so that one document occupies several cores."""


@dataclass
class Tally:
    """Documents, tokens and bytes written for one source."""

    documents: int = 0
    tokens: int = 0
    bytes: int = 0


def write_tokens(
    spool: Spool,
    documents: list[Document],
    tokenizer: "Tokenizer",
    writer: ShardWriter,
    n_sources: int,
    max_tokens: int | None,
    report: Report,
    stage: str,
) -> list[Tally]:
    """Append the documents' tokens to the writer, up to exactly `max_tokens`. Returns a tally for each source."""
    tallies = [Tally() for _ in range(n_sources)]
    end = end_of_text_id(tokenizer)
    total = sum(document.length for document in documents)
    done = 0
    report(stage, 0, max_tokens or total)
    for group, texts in _groups(documents, spool.texts(documents)):
        for document, ids in zip(group, _encode(tokenizer, texts), strict=True):
            tally = tallies[document.source]
            ids.append(end)
            room = len(ids) if max_tokens is None else max_tokens - writer.tokens
            length = document.length
            if room < len(ids):
                ids = ids[:room]
                length = int(tokenizer_bytes(tokenizer)[np.asarray(ids, dtype=np.int64)].sum())
            writer.append(ids)
            tally.documents += 1
            tally.tokens += len(ids)
            tally.bytes += length
            done += document.length
            if writer.tokens == max_tokens:
                report(stage, max_tokens, max_tokens)
                return tallies
        report(stage, writer.tokens if max_tokens else done, max_tokens or total)
    report(stage, total, total)
    return tallies


def _groups(documents: list[Document], texts: Iterator[str]) -> Iterator[tuple[list[Document], list[str]]]:
    group: list[Document] = []
    held: list[str] = []
    size = 0
    for document, text in zip(documents, texts, strict=True):
        group.append(document)
        held.append(text)
        size += document.length
        if size >= _GROUP_BYTES:
            yield group, held
            group, held, size = [], [], 0
    if group:
        yield group, held


def _encode(tokenizer: "Tokenizer", texts: list[str]) -> Iterator[list[int]]:
    """Token ids of each text; long texts go through in pieces."""
    pieces = [list(_pieces(text)) for text in texts]
    encoded = encode(tokenizer, [piece for parts in pieces for piece in parts])
    for parts in pieces:
        yield [index for _ in parts for index in next(encoded)]


def _pieces(text: str) -> Iterator[str]:
    start = 0
    while len(text) - start > _LONGEST:
        end = text.rfind("\n", start + 1, start + _LONGEST)
        end = end if end > 0 else start + _LONGEST
        yield text[start:end]
        start = end
    yield text[start:]
