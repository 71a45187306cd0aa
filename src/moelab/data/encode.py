"""Documents -> token files: texts are tokenized in parallel and appended in order, an end-of-text token after each."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from moelab.data.ledger import Document
from moelab.data.lossless import LosslessCheck
from moelab.data.progress import Report
from moelab.data.shards import ShardWriter, token_dtype
from moelab.data.spool import Spool
from moelab.data.tokenizer import encode

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_GROUP_BYTES = 1 << 20
"""Text tokenized together: enough to keep the cores busy, little enough to keep memory small."""
LONGEST = 1 << 18
"""Longer documents are tokenized in pieces cut before a line end, so that one document occupies several cores."""


@dataclass
class Tally:
    """Documents, tokens and bytes written for one source. `bytes` are those of the documents themselves."""

    documents: int = 0
    tokens: int = 0
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class _Piece:
    """A document's text or a stretch of it; `last` ends the document."""

    document: Document
    text: str
    last: bool


def write_tokens(
    spool: Spool,
    documents: Iterable[Document],
    total: int,
    tokenizer: "Tokenizer",
    end: int,
    check: LosslessCheck,
    writer: ShardWriter,
    max_tokens: int | None,
    report: Report,
    stage: str,
) -> list[Tally]:
    """Append the documents' tokens to the writer, up to exactly `max_tokens`. Returns a tally for each source.

    `total` is their size in bytes, `end` the id of the token after each. Raises InputError where `check` does.
    """
    tallies = [Tally() for _ in spool.documents.count]
    dtype = token_dtype(len(check.lengths))
    done = 0
    report(stage, 0, max_tokens or total)
    for group in _groups(spool, documents):
        for piece, ids in zip(group, encode(tokenizer, [piece.text for piece in group]), strict=True):
            check.compare(piece.document.source, piece.text, ids)
            tally = tallies[piece.document.source]
            if piece.last:
                ids.append(end)
            values = np.asarray(ids, dtype=dtype)
            room = len(values) if max_tokens is None else max_tokens - writer.tokens
            if room < len(values):
                values = values[:room]
                tally.bytes += int(check.lengths[values].sum())
            elif piece.document.length <= LONGEST:
                tally.bytes += piece.document.length
            else:
                tally.bytes += len(piece.text.encode())
            writer.append(values)
            check.count(piece.document.source, values)
            tally.documents += piece.last or writer.tokens == max_tokens
            tally.tokens += len(values)
            done += len(piece.text)
            if writer.tokens == max_tokens:
                report(stage, max_tokens, max_tokens)
                return tallies
        report(stage, writer.tokens if max_tokens else done, max_tokens or total)
    report(stage, total, total)
    return tallies


def _groups(spool: Spool, documents: Iterable[Document]) -> Iterator[list[_Piece]]:
    group: list[_Piece] = []
    size = 0
    for document in documents:
        held: str | None = None
        for text in spool.parts(document, LONGEST):
            if held is not None:
                group.append(_Piece(document, held, False))
                size += len(held)
            if size >= _GROUP_BYTES:
                yield group
                group, size = [], 0
            held = text
        group.append(_Piece(document, held or "", True))
        size += document.length if document.length <= LONGEST else len(held or "")
        if size >= _GROUP_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group
