"""De-duplication, the split by document, caps and the one order."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moelab.data.documents import Document, Spool, collect, mix, split
from moelab.data.sources import Source
from moelab.errors import InputError


def source(name: str, texts: list[str], max_share: float | None = None, streamed: bool = False) -> Source:
    return Source(name=name, read=lambda: iter(texts), identity={}, max_share=max_share, streamed=streamed)


def numbered(count: int, start: int = 0, length: int = 40) -> list[str]:
    return [f"{start + number:06d} " + "x" * length for number in range(count)]


def texts_of(spool: Spool) -> list[str]:
    return list(spool.texts(spool.documents))


def test_duplicates_and_empty_documents_are_dropped(tmp_path: Path) -> None:
    first, second = numbered(30), numbered(30, start=20)
    spool = collect([source("a", [*first, "  \n", first[3]]), source("b", second)], tmp_path / "spool", 0)
    assert texts_of(spool) == first + second[10:]
    assert spool.duplicates == 11


def test_texts_come_back_unchanged(tmp_path: Path) -> None:
    texts = [f"{number} é 漢字 🙂 \t\n\n end" for number in range(30)]
    assert texts_of(collect([source("a", texts)], tmp_path / "spool", 0)) == texts


def test_a_source_without_text_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="source: b holds no text"):
        collect([source("a", numbered(30)), source("b", ["", " "])], tmp_path / "spool", 0)
    with pytest.raises(InputError, match="not valid Unicode"):
        collect([source("a", ["\ud800"])], tmp_path / "spool", 0)


@pytest.mark.parametrize("separator", ["\n\n", "\n", " ", ""])
def test_one_long_text_is_cut_in_pieces_without_loss(tmp_path: Path, separator: str) -> None:
    text = separator.join(f"{number}é漢" * 20 for number in range(500))
    spool = collect([source("a", [text])], tmp_path / "spool", 0)
    pieces = texts_of(spool)
    assert "".join(pieces) == text
    assert len(pieces) > 20
    assert all(len(piece.encode()) < 3 * (1 << 10) for piece in pieces)
    if separator:
        assert all(piece.endswith(separator) for piece in pieces[:-1])


def test_a_capped_source_keeps_its_share(tmp_path: Path) -> None:
    sources = [source("a", numbered(300)), source("b", numbered(900, start=5000), max_share=0.25)]
    spool = collect(sources, tmp_path / "spool", 0)
    lengths = [sum(doc.length for doc in spool.documents if doc.source == index) for index in (0, 1)]
    assert lengths[1] / sum(lengths) == pytest.approx(0.25, abs=0.002)


def test_a_streamed_source_is_read_until_there_is_enough(tmp_path: Path) -> None:
    def endless() -> Iterator[str]:
        number = 0
        while True:
            number += 1
            yield f"document {number}"

    stream = Source(name="s", read=endless, identity={}, streamed=True)
    spool = collect([stream], tmp_path / "spool", 0, enough_bytes=10_000)
    assert 10_000 <= sum(document.length for document in spool.documents) < 10_100


def documents(sizes: list[int], source_index: int = 0, start: int = 0) -> list[Document]:
    return [
        Document(source_index, start + number, size, (start + number).to_bytes(16, "big"))
        for number, size in enumerate(sizes)
    ]


def test_the_split_holds_out_about_a_twentieth_of_every_source() -> None:
    everything = documents([100] * 1000) + documents([50] * 40, 1, 5000)
    training, validation = split(everything, 0.05, seed=3)
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
    training, validation = split(documents(sizes), share, seed)
    assert training
    assert validation
    assert len(training) + len(validation) == len(sizes)


def test_the_split_does_not_depend_on_the_order_of_reading() -> None:
    everything = documents([70, 80, 90] * 50)
    forward, backward = split(everything, 0.05, 1), split(everything[::-1], 0.05, 1)
    assert [set(part) for part in forward] == [set(part) for part in backward]
    assert set(split(everything, 0.05, 2)[1]) != set(forward[1])


def test_a_single_document_cannot_be_split() -> None:
    with pytest.raises(InputError, match="too little text"):
        split(documents([100]), 0.05, 0)


def test_every_prefix_of_the_order_has_the_same_mixture() -> None:
    everything = documents([100] * 600) + documents([30] * 1000, 1, 5000) + documents([3000] * 10, 2, 9000)
    ordered = mix(everything, seed=0)
    assert set(ordered) == set(everything)
    for upto in (200, 400, 800, 1200):
        lengths = [sum(d.length for d in ordered[:upto] if d.source == index) for index in range(3)]
        for length, share in zip(lengths, (0.5, 0.25, 0.25), strict=True):
            assert length / sum(lengths) == pytest.approx(share, abs=0.04)
    within = [document.start for document in ordered if document.source == 0]
    assert within != sorted(within)
