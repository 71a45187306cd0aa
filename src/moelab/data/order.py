"""Which documents are held out, and the one order of the others: both follow seeded hashes of their content."""

from collections.abc import Iterable, Iterator

import numpy as np

from moelab.data.ledger import RECORD, Document, Ledger, Records, by_rank, documents_of, in_order
from moelab.data.spool import Spool
from moelab.errors import InputError

MOST_VALIDATION_BYTES = 8 << 20
"""No source holds out more than this: beyond it a loss is known precisely enough."""


def split(spool: Spool, share: float, seed: int) -> tuple[Ledger, list[Document]]:
    """Training and validation documents: of every source, those of lowest rank up to `share` of its bytes.

    At least one document of each source is held out, and at least one is kept to train on. Raises InputError where a
    source has a single document.
    """
    old = spool.documents
    chosen = [_Held(min(share * size, MOST_VALIDATION_BYTES)) for size in old.bytes]
    for block in in_order(old.blocks(), len(old), by_rank(seed, "validation"), 2.0**64, spool.folder):
        for begin in range(0, len(block), 1024):
            open_ones = [index for index, held in enumerate(chosen) if not held.full]
            part = block[begin : begin + 1024]
            for document in documents_of(part[np.isin(part["source"], open_ones)]):
                chosen[document.source].offer(document)
    validation = [document for held in chosen for document in held.documents()]
    starts = np.array([document.start for document in validation], dtype=np.uint64)
    training = spool.new_ledger("training")
    for block in old.blocks():
        training.extend(block[~np.isin(block["start"], starts)])
    if any(before and not after for before, after in zip(old.count, training.count, strict=True)):
        raise InputError("source: too little text to hold some out; give at least two kilobytes")
    return training, validation


class _Held:
    """Documents of one source, offered in order, whose lengths add up to about `target`; one that would overshoot far
    is left to training, unless there is no other: then it is the shortest."""

    def __init__(self, target: float) -> None:
        self._target = target
        self._total = 0
        self._held: list[Document] = []
        self._shortest: Document | None = None

    @property
    def full(self) -> bool:
        return self._total >= self._target

    def offer(self, document: Document) -> None:
        if self.full:
            return
        if self._shortest is None or document.length < self._shortest.length:
            self._shortest = document
        if self._total + document.length <= 1.5 * self._target:
            self._held.append(document)
            self._total += document.length

    def documents(self) -> list[Document]:
        return self._held or ([self._shortest] if self._shortest else [])


def mix(spool: Spool, documents: Ledger, seed: int) -> Ledger:
    """The one order: shuffled within each source, and sources woven so that every prefix has the same mixture.

    So the first U tokens are a fair sample of the corpus for every U, and a smaller subset is part of a larger one.
    """
    shuffled = in_order(documents.blocks(), len(documents), by_rank(seed, "order"), 2.0**64, spool.folder)
    placed = _placed(shuffled, documents.bytes)
    result = spool.new_ledger("mixed")
    for block in in_order(placed, len(documents), lambda records: records["middle"], 1.0, spool.folder):
        result.extend(block[list(RECORD.names or ())].astype(RECORD))
    return result


def _placed(blocks: Iterable[Records], totals: list[int]) -> Iterator[Records]:
    """The records with the `middle` of each in its source's text, as a share of the whole."""
    kind = np.dtype([*((name, RECORD[name]) for name in RECORD.names or ()), ("middle", "<f8")])
    before = [0] * len(totals)
    for block in blocks:
        result = np.empty(len(block), dtype=kind)
        for name in RECORD.names or ():
            result[name] = block[name]
        for source in np.unique(block["source"]).tolist():
            own = block["source"] == source
            lengths = block["length"][own].astype(np.int64)
            ends = before[source] + np.cumsum(lengths)
            result["middle"][own] = (ends - lengths + lengths / 2) / totals[source]
            before[source] = int(ends[-1])
        yield result
