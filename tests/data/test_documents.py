"""De-duplication, the split by document, caps and the one order."""

import hashlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moelab.data import ledger
from moelab.data.documents import collect
from moelab.data.ledger import Document, Ledger, digest_of
from moelab.data.order import MOST_VALIDATION_BYTES, mix, split
from moelab.data.sources import Source
from moelab.data.spool import Spool
from moelab.errors import InputError


def source(name: str, texts: list[str], max_share: float | None = None, streamed: bool = False) -> Source:
    contents = [text.encode() for text in texts]
    return Source(name=name, read=lambda _: iter(contents), identity={}, max_share=max_share, streamed=streamed)


def numbered(count: int, start: int = 0, length: int = 40) -> list[str]:
    return [f"{start + number:06d} " + "x" * length for number in range(count)]


def texts_of(spool: Spool) -> list[str]:
    return list(spool.texts(spool.documents))


def test_duplicates_are_dropped(tmp_path: Path) -> None:
    first, second = numbered(30), numbered(30, start=20)
    spool = collect([source("a", [*first, first[3]]), source("b", second)], tmp_path, 0)
    assert texts_of(spool) == first + second[10:]
    assert spool.duplicates == 11


def test_texts_come_back_unchanged(tmp_path: Path) -> None:
    texts = [f"{number} é 漢字 🙂 \t\n\n end" for number in range(30)]
    assert texts_of(collect([source("a", texts)], tmp_path, 0)) == texts


def test_a_source_without_text_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="source: b holds no text"):
        collect([source("a", numbered(30)), source("b", [])], tmp_path, 0)


@pytest.mark.parametrize("separator", ["\n\n", "\n", " ", ""])
def test_one_long_text_is_cut_in_pieces_without_loss(tmp_path: Path, separator: str) -> None:
    text = separator.join(f"{number}é漢" * 20 for number in range(500))
    spool = collect([source("a", [text])], tmp_path, 0)
    pieces = texts_of(spool)
    assert "".join(pieces) == text
    assert len(pieces) > 20
    assert all(len(piece.encode()) < 3 * (1 << 10) for piece in pieces)
    if separator:
        assert all(piece.endswith(separator) for piece in pieces[:-1])


def test_a_capped_source_keeps_its_share(tmp_path: Path) -> None:
    sources = [source("a", numbered(300)), source("b", numbered(900, start=5000), max_share=0.25)]
    spool = collect(sources, tmp_path, 0)
    lengths = [sum(doc.length for doc in spool.documents if doc.source == index) for index in (0, 1)]
    assert lengths[1] / sum(lengths) == pytest.approx(0.25, abs=0.002)


def test_a_streamed_source_is_read_until_there_is_enough(tmp_path: Path) -> None:
    def endless(_: object) -> Iterator[bytes]:
        number = 0
        while True:
            number += 1
            yield f"document {number}".encode()

    stream = Source(name="s", read=endless, identity={}, streamed=True)
    spool = collect([stream], tmp_path, 0, enough_bytes=10_000)
    assert 10_000 <= sum(document.length for document in spool.documents) < 10_100


def documents(sizes: list[int], source_index: int = 0, start: int = 0) -> list[Document]:
    return [
        Document(source_index, start + number, size, digest_of(str(start + number).encode()))
        for number, size in enumerate(sizes)
    ]


def spooled(documents: list[Document]) -> Spool:
    """Documents without their texts."""
    n_sources = 1 + max(document.source for document in documents)
    folder = Path(tempfile.mkdtemp(dir=tempfile.gettempdir()))
    spool = Spool(folder, Ledger(folder / "read", n_sources))
    for document in documents:
        spool.documents.append(document)
    return spool


def halves(everything: list[Document], share: float, seed: int) -> tuple[list[Document], list[Document]]:
    spool = spooled(everything)
    training, validation = split(spool, share, seed)
    result = list(training), validation
    shutil.rmtree(spool.folder)
    return result


def mixed(everything: list[Document], seed: int) -> list[Document]:
    spool = spooled(everything)
    result = list(mix(spool, spool.documents, seed))
    shutil.rmtree(spool.folder)
    return result


def rank(document: Document, seed: int, purpose: str) -> bytes:
    key = hashlib.sha256(f"{purpose}:{seed}".encode()).digest()
    return hashlib.blake2b(document.digest, digest_size=8, key=key).digest()


def split_reference(documents: list[Document], share: float, seed: int) -> tuple[set[Document], list[Document]]:
    """All documents in lists: of every source those of lowest rank."""
    validation: list[Document] = []
    for index in sorted({document.source for document in documents}):
        own = sorted((d for d in documents if d.source == index), key=lambda d: rank(d, seed, "validation"))
        target = min(share * sum(document.length for document in own), MOST_VALIDATION_BYTES)
        held: list[Document] = []
        for document in own:
            total = sum(before.length for before in held)
            if total >= target:
                break
            if total + document.length <= 1.5 * target:
                held.append(document)
        validation += held or [min(own, key=lambda document: document.length)]
    return set(documents) - set(validation), validation


def mix_reference(documents: list[Document], seed: int) -> list[Document]:
    """All documents in a list, sorted by the middle of each in its source's shuffled text."""
    totals: dict[int, int] = {}
    for document in documents:
        totals[document.source] = totals.get(document.source, 0) + document.length
    placed = []
    before = dict.fromkeys(totals, 0)
    for document in sorted(documents, key=lambda document: rank(document, seed, "order")):
        middle = (before[document.source] + document.length / 2) / totals[document.source]
        before[document.source] += document.length
        placed.append((middle, document.source, document))
    return [document for _, _, document in sorted(placed, key=lambda entry: entry[:2])]


@pytest.mark.parametrize("block", [7, 1 << 19])
@given(sizes=st.lists(st.lists(st.integers(1, 5000), min_size=2, max_size=30), min_size=1, max_size=3))
@settings(max_examples=25)
def test_split_and_order_are_those_of_lists_however_many_parts_are_sorted(block: int, sizes: list[list[int]]) -> None:
    everything = [d for index, own in enumerate(sizes) for d in documents(own, index, 10_000 * index)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ledger, "BLOCK", block)
        training, validation = halves(everything, 0.1, 3)
        assert (set(training), validation) == split_reference(everything, 0.1, 3)
        assert mixed(everything, 5) == mix_reference(everything, 5)


def test_duplicates_beyond_those_held_in_memory_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "MOST_SEEN", 10)
    monkeypatch.setattr(ledger, "BLOCK", 16)
    first, second = numbered(100), numbered(100, start=60)
    spool = collect([source("a", [*first, *first[:50]]), source("b", second)], tmp_path, 0)
    assert sorted(texts_of(spool)) == sorted(first + second[40:])
    assert {document.source for document in spool.documents if spool.read(document.start, 6) < b"000100"} == {0}
    assert spool.duplicates == 90


def test_a_long_text_comes_in_parts_and_is_the_same(tmp_path: Path) -> None:
    text = "".join(f"{number} é漢\n" * 3 for number in range(9000))
    content = text.encode()
    half = len(text) // 2

    def read(_: object) -> Iterator[Iterator[bytes]]:
        yield iter([text[:half].encode(), text[half:].encode()])
        yield iter([content])

    spool = collect([Source(name="a", read=read, identity={}), source("b", numbered(30))], tmp_path, 0)
    assert spool.duplicates == 1
    assert "".join(spool.texts(d for d in spool.documents if d.source == 0)) == text
    whole = Document(0, 0, len(content), b"")
    for longest in (1000, 70_000):
        pieces = list(spool.parts(whole, longest))
        assert "".join(pieces) == text
        assert max(map(len, pieces)) <= longest
        assert all(piece.startswith("\n") for piece in pieces[1:])


def test_the_split_holds_out_about_a_twentieth_of_every_source() -> None:
    everything = documents([100] * 1000) + documents([50] * 40, 1, 5000)
    training, validation = halves(everything, 0.05, seed=3)
    assert sorted([*training, *validation], key=everything.index) == everything
    for index, total in ((0, 100_000), (1, 2000)):
        held = sum(document.length for document in validation if document.source == index)
        assert held / total == pytest.approx(0.05, rel=0.5)


@given(
    sizes=st.lists(st.integers(1, 10_000), min_size=2, max_size=60),
    share=st.floats(0.01, 0.5),
    seed=st.integers(0, 100),
)
def test_the_split_always_leaves_both_sides_something(sizes: list[int], share: float, seed: int) -> None:
    training, validation = halves(documents(sizes), share, seed)
    assert training
    assert validation
    assert len(training) + len(validation) == len(sizes)


def test_the_split_does_not_depend_on_the_order_of_reading() -> None:
    everything = documents([70, 80, 90] * 50)
    forward, backward = halves(everything, 0.05, 1), halves(everything[::-1], 0.05, 1)
    assert [set(part) for part in forward] == [set(part) for part in backward]
    assert set(halves(everything, 0.05, 2)[1]) != set(forward[1])


def test_a_single_document_cannot_be_split() -> None:
    with pytest.raises(InputError, match="too little text"):
        halves(documents([100]), 0.05, 0)


def test_every_prefix_of_the_order_has_the_same_mixture() -> None:
    everything = documents([100] * 600) + documents([30] * 1000, 1, 5000) + documents([3000] * 10, 2, 9000)
    ordered = mixed(everything, seed=0)
    assert set(ordered) == set(everything)
    for upto in (200, 400, 800, 1200):
        lengths = [sum(d.length for d in ordered[:upto] if d.source == index) for index in range(3)]
        for length, share in zip(lengths, (0.5, 0.25, 0.25), strict=True):
            assert length / sum(lengths) == pytest.approx(share, abs=0.04)
    within = [document.start for document in ordered if document.source == 0]
    assert within != sorted(within)
