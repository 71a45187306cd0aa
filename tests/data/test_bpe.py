"""The sample that a tokenizer learns from is bounded whatever the text holds, and unchanged where it is ordinary."""

import base64
import random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from moelab.data import bpe
from moelab.data.bpe import capped, train_tokenizer
from tests.conftest import CHARACTERS

from .conftest import make_documents


@given(st.lists(st.text(CHARACTERS, max_size=300), max_size=20))
def test_ordinary_texts_come_unchanged(texts: list[str]) -> None:
    assert list(capped(texts)) == texts


@given(st.lists(st.text(alphabet="ab1 -_\n", min_size=0, max_size=80), max_size=10))
@example(["1      1"])
@settings(max_examples=50)
def test_long_runs_come_in_pieces_and_nothing_else_is_lost(texts: list[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bpe, "LONGEST_WORD", 5)
        patch.setattr(bpe, "_LONG_RUN", bpe.long_runs(6))
        parts = list(capped(texts))
    assert sorted("".join(parts)) == sorted("".join(texts))
    assert all(len(run.group()) <= 5 for part in parts for run in bpe.long_runs(6).finditer(part))


@pytest.mark.parametrize("letter", ["a", "é漢", "7", " ", "-"])
def test_one_endless_word_is_learnt_from_in_little_time(letter: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A word of a million letters: each merge would go through all of them."""
    monkeypatch.setattr(bpe, "MOST_LONG", 1 << 13)
    endless = (letter * (1 << 20))[: 1 << 20]
    parts = list(capped(["before " + endless + " after"]))
    assert sum(map(len, parts)) <= (1 << 13) + 20
    assert max(map(len, parts)) <= bpe.LONGEST_WORD + 10
    text = "".join(make_documents(40))
    assert train_tokenizer([text, endless, text], 300).get_vocab_size() == 300


def test_the_sample_ends_where_its_different_words_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bpe, "MOST_DISTINCT", 1 << 19)
    generator = random.Random(0)
    noise = (base64.b32encode(generator.randbytes(50_000)).decode() for _ in range(1000))
    texts = (" ".join(text[at : at + 8] for at in range(0, len(text), 8)) for text in noise)
    size = sum(map(len, capped(texts)))
    assert 1 << 19 < size < 3 << 19
    plain = make_documents(50) * 20
    assert len(list(capped(plain))) == len(plain)


def test_progress_is_reported_while_counting_and_learning() -> None:
    stages: dict[str, tuple[int, int]] = {}
    train_tokenizer(make_documents(50), 300, lambda stage, done, total: stages.update({stage: (done, total)}))
    assert set(stages) == {"count words", "train tokenizer"}
    assert all(done == total > 0 for done, total in stages.values())


def test_what_fails_in_the_thread_fails_here() -> None:
    def texts():
        yield "one"
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        train_tokenizer(texts(), 300)
