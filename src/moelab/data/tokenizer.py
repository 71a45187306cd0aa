"""Byte-level tokenizers: a given tokenizer.json or tiktoken-style rank file is read, checked and used.

Byte-level means that a token has an exact length in bytes, which is what bits per byte need. (`bpe` trains one,
`lossless` holds that it keeps the text.) The library `tokenizers` is imported only inside functions.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from moelab.data.ranks import byte_letters, read_ranks, tokenizer_of_ranks
from moelab.errors import InputError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

END_OF_TEXT = "<|endoftext|>"
"""The token after every document."""
KNOWN_ENDS = (END_OF_TEXT, "<|end_of_text|>", "</s>", "<eos>", "<|eos|>", "<EOS>", "[EOS]")
SMALLEST_VOCABULARY = 257
"""256 bytes and the end-of-text token."""
LARGEST_VOCABULARY = 10_000_000
"""Beyond this a vocabulary, or a token's id, is a slip: every id below it costs a row of the embedding."""


def load_tokenizer(path: str | Path, end_of_text: str | None = None, pattern: str | None = None) -> "Tokenizer":
    """Read a byte-level tokenizer.json, or a tiktoken-style rank file. Raises InputError where it is neither.

    `end_of_text` names the token after every document, by default one of KNOWN_ENDS. `pattern` is how a rank file
    splits text: one of `ranks.PATTERNS`, or a regular expression.
    """
    content = _content(path)
    if _is_ranks(content):
        ranks = read_ranks(content, path, LARGEST_VOCABULARY)
        return tokenizer_of_ranks(ranks, end_of_text or END_OF_TEXT, pattern)
    if pattern is not None:
        raise InputError(f"pattern: {path} has its own; only rank files need one")
    tokenizer = _from_json(content, path)
    if end_of_text is None:
        end_of_text_id(tokenizer)
    else:
        _make_special(tokenizer, end_of_text, path)
    return tokenizer


def load_prepared(path: Path) -> "Tokenizer":
    """The tokenizer.json of a prepared folder, whose manifest names the end of text."""
    return _from_json(_content(path), path)


def _content(path: str | Path) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"tokenizer: cannot read {path}: {error.strerror}") from error


def _is_ranks(content: bytes) -> bool:
    return not content.lstrip().startswith(b"{")


def _from_json(content: bytes, path: str | Path) -> "Tokenizer":
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_str(content.decode())
    except Exception as error:  # the library raises bare Exception
        raise InputError(f"tokenizer: {path} is not a tokenizer.json: {error}") from None
    given = json.loads(content)
    if isinstance(given["model"]["vocab"], dict):
        _check_ids(given, path)  # before the library writes the vocabulary: it counts up to the largest id
    state = json.loads(tokenizer.to_str())
    if state["model"]["type"] != "BPE" or not _mentions(state.get("decoder"), "ByteLevel"):
        raise InputError(f"tokenizer: {path} is not byte-level BPE, so its tokens have no exact length in bytes")
    tokenizer.no_padding()
    tokenizer.no_truncation()
    if state["model"].get("dropout"):
        tokenizer.model.dropout = None  # training by chance merges: tokens of the same text would differ at each call
    return tokenizer


def _make_special(tokenizer: "Tokenizer", name: str, path: str | Path) -> None:
    """Let the named token stand for nothing but the end of a text. Raises InputError where the tokenizer lacks it."""
    from tokenizers import AddedToken

    index = tokenizer.token_to_id(name)
    added = tokenizer.get_added_tokens_decoder()
    if index is None:
        known = ", ".join(token.content for token in list(added.values())[:12] if token.special) or "none"
        raise InputError(f"end_of_text: {path} has no token {name!r} (its special tokens: {known})")
    if index not in added or not added[index].special:
        tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False)])
        now = tokenizer.get_added_tokens_decoder().get(index)
        if now is None or not now.special:
            raise InputError(f"end_of_text: {name!r} of {path} is ordinary text; name a special token")


def _check_ids(state: dict[str, Any], path: str | Path) -> None:
    """Raises InputError where two tokens of the file share an id (the library drops one), or one is out of range."""
    tokens = state["model"]["vocab"] | {added["content"]: added["id"] for added in state.get("added_tokens") or ()}
    by_id: dict[int, str] = {}
    for token, index in tokens.items():
        if index >= LARGEST_VOCABULARY:
            raise InputError(
                f"tokenizer: {path}: the id of {token!r} must be 0 to {LARGEST_VOCABULARY - 1}, got {index}"
            )
        if by_id.setdefault(index, token) != token:
            raise InputError(f"tokenizer: {path}: {by_id[index]!r} and {token!r} share the id {index}")


def end_of_text_id(tokenizer: "Tokenizer", end_of_text: str | None = None) -> int:
    """The id of the token after a document: the named one. Raises InputError where the tokenizer has none of them."""
    names = KNOWN_ENDS if end_of_text is None else (end_of_text,)
    for name in names:
        found = tokenizer.token_to_id(name)
        if found is not None:
            return int(found)
    raise InputError(
        f"tokenizer: it has no end-of-text token (looked for {', '.join(names)}); name its own with end_of_text"
    )


def encode(tokenizer: "Tokenizer", texts: list[str]) -> Iterator[list[int]]:
    """Token ids of each text, in parallel over the texts; a text that spells a special token is ordinary text."""
    tokenizer.encode_special_tokens = True
    for encoding in tokenizer.encode_batch_fast(texts, add_special_tokens=False):
        yield encoding.ids


def token_bytes(state: dict[str, Any], vocab_size: int) -> NDArray[np.int64]:
    """Length in bytes of every token, shape (vocab_size,), from the JSON of a tokenizer; special tokens have none.

    A byte-level vocabulary writes each byte as one character, so a token's length is its number of characters.
    """
    lengths = np.zeros(vocab_size, dtype=np.int64)
    for token, index in state["model"]["vocab"].items():
        lengths[index] = len(token)
    for added in state.get("added_tokens") or ():
        lengths[added["id"]] = 0 if added["special"] else len(added["content"].encode())
    return lengths


def spelled_tokens(tokenizer: "Tokenizer") -> list[bytes]:
    """The bytes that each token spells, by id; special tokens and unused ids spell none."""
    state = json.loads(tokenizer.to_str())
    return spelled_by(state, vocabulary_size(state), specials=False)


def spelled_by(state: dict[str, Any], vocab_size: int, specials: bool) -> list[bytes]:
    """The bytes that each token of a byte-level vocabulary spells; `specials` too by their names, or not at all."""
    values = {letter: value for value, letter in enumerate(byte_letters())}
    spelled = [b""] * vocab_size
    for token, index in state["model"]["vocab"].items():
        known = set(token) <= values.keys()
        spelled[index] = bytes([values[letter] for letter in token]) if known else token.encode()
    for added in state.get("added_tokens") or ():
        spelled[added["id"]] = added["content"].encode() if specials or not added["special"] else b""
    return spelled


def word_parts(state: dict[str, Any], vocab_size: int) -> NDArray[np.uint8]:
    """How tokens join to words, shape (vocab_size,): bit 1 where a token begins with a letter or digit (any byte of a
    longer UTF-8 letter counts), bit 2 where it ends with one; special tokens have neither."""
    letters = {letter: value for value, letter in enumerate(byte_letters())}
    parts = np.zeros(vocab_size, dtype=np.uint8)
    special = {added["content"] for added in state.get("added_tokens") or () if added["special"]}
    for token, index in state["model"]["vocab"].items():
        if token not in special:
            first, last = (letters.get(letter, 0) for letter in (token[0], token[-1]))
            parts[index] = _in_word(first) + 2 * _in_word(last)
    return parts


def _in_word(value: int) -> bool:
    return value >= 0x80 or chr(value).isalnum()


def tokenizer_bytes(tokenizer: "Tokenizer") -> NDArray[np.int64]:
    """`token_bytes` of a loaded tokenizer."""
    state = json.loads(tokenizer.to_str())
    return token_bytes(state, vocabulary_size(state))


def vocabulary_size(state: dict[str, Any]) -> int:
    """One more than the largest token id in the JSON of a tokenizer."""
    ids = [*state["model"]["vocab"].values(), *(added["id"] for added in state.get("added_tokens") or ())]
    return max(ids) + 1


def _mentions(value: Any, kind: str) -> bool:
    """Whether a nested JSON value has an object of this type."""
    if isinstance(value, dict):
        return value.get("type") == kind or any(_mentions(inner, kind) for inner in value.values())
    return isinstance(value, list) and any(_mentions(inner, kind) for inner in value)
