"""Train byte-level BPE on a sample of the corpus, in bounded memory and time whatever the text holds."""

import re
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from moelab.data.progress import Report, no_report
from moelab.data.tokenizer import END_OF_TEXT, SMALLEST_VOCABULARY
from moelab.errors import InputError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

LONGEST_WORD = 1000
"""Characters; a longer run without a break is learnt from in pieces of this length."""
MOST_LONG = 1 << 20
"""Characters of such runs that are learnt from: each merge goes through all of the pieces that hold its pair."""
MOST_DISTINCT = 3 << 20
"""Bytes of different words in the sample: learning takes up to 130 bytes of memory for each."""
_WORD = re.compile(r"[^\W\d_]+|\d+|(?:[^\w\s]|_)+")


def long_runs(longest: int) -> re.Pattern[str]:
    """Runs of at least so many characters of one kind, which the pre-tokenizer does not break."""
    return re.compile("|".join(f"{kind}{{{longest},}}+" for kind in (r"[^\W\d_]", r"\d", r"(?:[^\w\s]|_)", r"\s")))


_LONG_RUN = long_runs(LONGEST_WORD + 1)


def train_tokenizer(texts: Iterable[str], vocab_size: int, report: Report = no_report, total: int = 0) -> "Tokenizer":
    """Train byte-level BPE with exactly `vocab_size` tokens, the end-of-text token among them. Deterministic.

    `total` is the size of the texts in characters, for the report. Raises InputError for a vocabulary below 257, or
    larger than the text can fill.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    if vocab_size < SMALLEST_VOCABULARY:
        raise InputError(f"vocab_size: must be at least {SMALLEST_VOCABULARY} (256 bytes + 1), got {vocab_size}")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    _in_thread(lambda: tokenizer.train_from_iterator(_reported(capped(texts), report, total), trainer), report)
    found = tokenizer.get_vocab_size()
    if found < vocab_size:
        raise InputError(f"vocab_size: the text fills only {found} tokens, {vocab_size} asked; give more text")
    return tokenizer


def capped(texts: Iterable[str]) -> Iterator[str]:
    """The texts, long runs without a break cut in pieces, until their different words fill MOST_DISTINCT bytes.

    Texts without such runs come unchanged.
    """
    words = _Words()
    left = MOST_LONG
    for text in texts:
        chunks = text.split()
        # The longest gap between chunks, where all others are one space: at most the rest and two.
        gap = len(text) - sum(map(len, chunks)) - len(chunks) + 2
        if len(text) <= LONGEST_WORD or (gap <= LONGEST_WORD and max(map(len, chunks), default=0) <= LONGEST_WORD):
            yield text
            words.add(chunks)
        else:
            done = 0
            for run in _LONG_RUN.finditer(text):
                yield text[done : run.start()]
                piece, done = run.group()[:left], run.end()
                left -= len(piece)
                yield from (piece[start : start + LONGEST_WORD] for start in range(0, len(piece), LONGEST_WORD))
            yield text[done:]
            words.add([chunk for chunk in chunks if len(chunk) <= LONGEST_WORD])
            for chunk in (chunk for chunk in chunks if len(chunk) > LONGEST_WORD):
                words.add([word for word in _WORD.findall(chunk) if len(word) <= LONGEST_WORD])
        if words.full:
            return


class _Words:
    """Different words so far, and whether they fill MOST_DISTINCT bytes."""

    def __init__(self) -> None:
        self._chunks: set[str] = set()
        self._next = 1 << 16
        self.full = False

    def add(self, chunks: list[str]) -> None:
        """Look at a text cut at white space; their size is taken now and then only."""
        self._chunks.update(chunks)
        if len(self._chunks) >= self._next:
            self._next = len(self._chunks) * 5 // 4
            joined = " ".join(self._chunks)
            if len(joined.encode()) - len(self._chunks) > MOST_DISTINCT:
                words = {found.group() for found in _WORD.finditer(joined)}
                self.full = len("".join(words).encode()) > MOST_DISTINCT


def _reported(texts: Iterable[str], report: Report, total: int) -> Iterator[str]:
    done = 0
    for text in texts:
        done += len(text)
        report("count words", done, max(total, done))
        yield text
    report("count words", done, done)


def _in_thread(work: Callable[[], None], report: Report) -> None:
    """Do long work of the library beside this thread, which reports meanwhile and can be interrupted."""
    failed: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    seconds = 0
    while thread.is_alive():
        report("train tokenizer", seconds, 0)
        thread.join(1.0)
        seconds += 1
    if failed:
        raise failed[0]
    report("train tokenizer", max(seconds, 1), max(seconds, 1))
