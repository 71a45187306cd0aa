"""Byte-level BPE: train one on the corpus, or take a given tokenizer.json or tiktoken-style rank file.

Byte-level means that every text is tokenized without loss and that a token has an exact length in bytes, which is what
bits per byte need. The library `tokenizers` is imported only inside functions.
"""

import base64
import binascii
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

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

_CL100K = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> "Tokenizer":
    """Train byte-level BPE with exactly `vocab_size` tokens, the end-of-text token among them. Deterministic.

    Raises InputError for a vocabulary below 257, or larger than the text can fill.
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
    tokenizer.train_from_iterator(texts, trainer)
    found = tokenizer.get_vocab_size()
    if found < vocab_size:
        raise InputError(f"vocab_size: the text fills only {found} tokens, {vocab_size} asked; give more text")
    return tokenizer


def load_tokenizer(path: str | Path) -> "Tokenizer":
    """Read a byte-level tokenizer.json, or a tiktoken-style rank file. Raises InputError where it is neither."""
    from tokenizers import Tokenizer

    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"tokenizer: cannot read {path}: {error.strerror}") from error
    if not content.lstrip().startswith(b"{"):
        return _from_ranks(_read_ranks(content, path))
    try:
        tokenizer = Tokenizer.from_str(content.decode())
    except Exception as error:  # the library raises bare Exception
        raise InputError(f"tokenizer: {path} is not a tokenizer.json: {error}") from None
    state = json.loads(tokenizer.to_str())
    if state["model"]["type"] != "BPE" or not _mentions(state.get("decoder"), "ByteLevel"):
        raise InputError(f"tokenizer: {path} is not byte-level BPE, so its tokens have no exact length in bytes")
    _check_ids(json.loads(content), path)
    tokenizer.no_padding()
    tokenizer.no_truncation()
    end_of_text_id(tokenizer)
    return tokenizer


def _check_ids(state: dict[str, Any], path: str | Path) -> None:
    """Raises InputError where two tokens of the file share an id (the library drops one), or one is absurdly large."""
    tokens = state["model"]["vocab"] | {added["content"]: added["id"] for added in state.get("added_tokens") or ()}
    by_id: dict[int, str] = {}
    for token, index in tokens.items():
        if index >= LARGEST_VOCABULARY:
            raise InputError(
                f"tokenizer: {path}: the id of {token!r} must be 0 to {LARGEST_VOCABULARY - 1}, got {index}"
            )
        if by_id.setdefault(index, token) != token:
            raise InputError(f"tokenizer: {path}: {by_id[index]!r} and {token!r} share the id {index}")


def end_of_text_id(tokenizer: "Tokenizer") -> int:
    """The id of the token after a document. Raises InputError where the tokenizer has none of the known names."""
    for name in KNOWN_ENDS:
        found = tokenizer.token_to_id(name)
        if found is not None:
            return int(found)
    raise InputError(f"tokenizer: it has no end-of-text token (looked for {', '.join(KNOWN_ENDS)})")


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


def _read_ranks(content: bytes, path: str | Path) -> dict[bytes, int]:
    """Lines of `base64-token rank`. Raises InputError naming the line that is something else or says it again."""
    ranks: dict[bytes, int] = {}
    lines: dict[bytes | int, int] = {}
    for number, line in enumerate(content.splitlines(), 1):
        if not line.strip():
            continue
        where = f"tokenizer: {path} line {number}"
        try:
            encoded, digits = line.split()
            token, rank = base64.b64decode(encoded, validate=True), int(digits)
        except (ValueError, binascii.Error):
            raise InputError(f"{where} is no `base64-token rank` (nor is it JSON)") from None
        if not 0 <= rank < LARGEST_VOCABULARY:
            raise InputError(f"{where}: a rank must be 0 to {LARGEST_VOCABULARY - 1}, got {digits.decode()[:20]}")
        if not token:
            raise InputError(f"{where}: the token is empty")
        for what, seen in (("token", token), ("rank", rank)):
            if seen in lines:
                raise InputError(f"{where}: the {what} stands on line {lines[seen]} already; each is allowed once")
            lines[seen] = number
        ranks[token] = rank
    missing = sum(bytes([value]) not in ranks for value in range(256))
    if missing:
        raise InputError(f"tokenizer: {path} lacks {missing} of the 256 single bytes")
    return ranks


def _from_ranks(ranks: dict[bytes, int]) -> "Tokenizer":
    """A tokenizer that merges as tiktoken does: the pair whose joined bytes rank lowest first.

    Rank files do not name their splitting pattern: above 60,000 tokens cl100k's is used, below GPT-2's. The end-of-text
    token gets the first free rank.
    """
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

    letters = byte_letters()

    def spell(token: bytes) -> str:
        return "".join(letters[value] for value in token)

    merges: list[tuple[str, str]] = []
    for token, _ in sorted(ranks.items(), key=lambda item: item[1]):
        pairs = [(token[:cut], token[cut:]) for cut in range(1, len(token))]
        known = [pair for pair in pairs if pair[0] in ranks and pair[1] in ranks]
        known.sort(key=lambda pair: (ranks[pair[0]], ranks[pair[1]]))
        merges.extend((spell(left), spell(right)) for left, right in known)
    vocabulary = {spell(token): rank for token, rank in ranks.items()}
    taken = set(ranks.values())
    vocabulary.setdefault(END_OF_TEXT, next(rank for rank in range(len(taken) + 1) if rank not in taken))
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, ignore_merges=True))
    pieces = pre_tokenizers.ByteLevel(add_prefix_space=False)
    if len(ranks) > 60_000:
        pieces = pre_tokenizers.Sequence(  # type: ignore[assignment]
            [
                pre_tokenizers.Split(Regex(_CL100K), "isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
    tokenizer.pre_tokenizer = pieces
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(END_OF_TEXT, special=True, normalized=False)])
    return tokenizer


def byte_letters() -> list[str]:
    """GPT-2's way to write the 256 bytes as 256 printable characters."""
    printable = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    others = iter(range(256, 512))
    return [chr(value) if value in printable else chr(next(others)) for value in range(256)]
