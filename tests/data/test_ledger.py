"""Records on disk: what goes in comes out, sorted in any number of parts as in one."""

from pathlib import Path

import numpy as np
import pytest

from moelab.data import ledger
from moelab.data.ledger import Document, Ledger, digest_of, documents_of, in_order


def filled(path: Path, count: int, n_sources: int = 3) -> tuple[Ledger, list[Document]]:
    documents = [Document(i % n_sources, i, 1 + i % 7, digest_of(str(i % 500).encode())) for i in range(count)]
    result = Ledger(path, n_sources)
    for document in documents:
        result.append(document)
    return result, documents


def test_what_goes_in_comes_out(tmp_path: Path) -> None:
    records, documents = filled(tmp_path / "a", 10_000)
    assert list(records) == documents
    assert len(records) == 10_000
    assert sum(records.bytes) == sum(document.length for document in documents)
    again = Ledger(tmp_path / "b", 3)
    for block in records.blocks():
        again.extend(block)
    assert (list(again), again.count, again.bytes) == (documents, records.count, records.bytes)
    assert list(Ledger(tmp_path / "c", 1)) == []


@pytest.mark.parametrize("block", [1, 10, 333, 1 << 19])
def test_any_number_of_parts_gives_the_same_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    records, documents = filled(tmp_path / "a", 300)
    monkeypatch.setattr(ledger, "BLOCK", block)
    rank = ledger.by_rank(3, "order")
    ordered = [
        document
        for part in in_order(records.blocks(), len(records), rank, 2.0**64, tmp_path)
        for document in documents_of(part)
    ]
    keys = {document: int(key) for document, key in zip(documents, rank(next(iter(_all(records)))), strict=True)}
    assert ordered == sorted(documents, key=lambda document: (keys[document], document.source))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a"]


def _all(records: Ledger) -> list[np.ndarray]:
    return [np.concatenate(list(records.blocks()))]
