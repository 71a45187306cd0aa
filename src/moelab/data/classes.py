"""What a token is, by its text: its spelling for people and one of a few classes."""

import numpy as np
from numpy.typing import NDArray

from moelab.data.dataset import Dataset
from moelab.data.tokenizer import spelled_by
from moelab.files import expect_content, read_json

CLASSES = ("word", "capitalised word", "word piece", "number", "punctuation", "space", "not ASCII", "end of text")
"""A `word` begins with a space; a `word piece` is letters that go on with what stood before."""


def token_texts(dataset: Dataset) -> list[str]:
    """The text of every token, by id; bytes that are no whole letter read as the replacement character."""
    return [raw.decode("utf-8", "replace") for raw in _token_bytes(dataset)]


def token_classes(dataset: Dataset) -> NDArray[np.int64]:
    """The class of every token, shape (vocab_size,), as an index into CLASSES."""
    special = dataset.manifest.end_of_text
    names = [class_of(raw) if index != special else "end of text" for index, raw in enumerate(_token_bytes(dataset))]
    return np.array([CLASSES.index(name) for name in names])


def class_of(raw: bytes) -> str:
    """The class of a token that spells these bytes."""
    if any(value >= 0x80 for value in raw):
        return "not ASCII"
    text = raw.decode("ascii")
    inner = text.strip()
    if not inner:
        return "space"
    if any(letter.isdigit() for letter in inner):
        return "number"
    if not any(letter.isalpha() for letter in inner):
        return "punctuation"
    if inner[0].isupper():
        return "capitalised word"
    return "word" if text[0].isspace() else "word piece"


def _token_bytes(dataset: Dataset) -> list[bytes]:
    """The bytes that each token of a byte-level vocabulary spells; ids that the tokenizer lacks spell none."""
    state = read_json(dataset.tokenizer_path, "data")
    with expect_content(f"data: {dataset.tokenizer_path} is not the tokenizer of this data"):
        return spelled_by(state, dataset.vocab_size, specials=True)
