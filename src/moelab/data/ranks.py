"""Rank files as tiktoken writes them (`base64-token rank` lines): read with care, turned into a tokenizer."""

import base64
import binascii
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moelab.errors import InputError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_CL100K = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_LETTER = r"[^\r\n\p{L}\p{N}]?"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_ENDING = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
_O200K = (
    rf"{_LETTER}{_UPPER}*{_LOWER}+{_ENDING}|{_LETTER}{_UPPER}+{_LOWER}*{_ENDING}|\p{{N}}{{1,3}}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
PATTERNS: dict[str, str | None] = {"gpt2": None, "cl100k": _CL100K, "o200k": _O200K}
"""Splitting patterns by name; GPT-2's is built into the byte-level pre-tokenizer."""


def pattern_by_size(n_ranks: int) -> str:
    """The pattern of the vocabulary that is known with about this size: rank files do not name theirs."""
    return "gpt2" if n_ranks <= 60_000 else "cl100k" if n_ranks <= 150_000 else "o200k"


def read_ranks(content: bytes, path: str | Path, largest: int) -> dict[bytes, int]:
    """Lines of `base64-token rank`. Raises InputError naming the line that is something else or repeats another."""
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
        if not 0 <= rank < largest:
            raise InputError(f"{where}: a rank must be 0 to {largest - 1}, got {digits.decode()[:20]}")
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


def tokenizer_of_ranks(ranks: dict[bytes, int], end_of_text: str, pattern: str | None) -> "Tokenizer":
    """A tokenizer that merges as tiktoken does: the pair whose joined bytes rank lowest first.

    `pattern` is one of PATTERNS or a regular expression of its own, by default that of the nearest known size. The
    end-of-text token gets the first free rank. Raises InputError for an expression that cannot be used.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models

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
    vocabulary.setdefault(end_of_text, next(rank for rank in range(len(taken) + 1) if rank not in taken))
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, ignore_merges=True))
    tokenizer.pre_tokenizer = _splitter(pattern or pattern_by_size(len(ranks)))
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(end_of_text, special=True, normalized=False)])
    return tokenizer


def _splitter(pattern: str) -> Any:
    from tokenizers import Regex, pre_tokenizers

    expression = PATTERNS.get(pattern, pattern)
    if expression is None:
        return pre_tokenizers.ByteLevel(add_prefix_space=False)
    try:
        split = pre_tokenizers.Split(Regex(expression), "isolated")
    except Exception as error:  # the library raises bare Exception
        reason = " ".join(str(error).split())[:100]
        raise InputError(
            f"pattern: must be {', '.join(PATTERNS)} or a regular expression; {pattern[:60]!r} is none ({reason})"
        ) from None
    return pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def byte_letters() -> list[str]:
    """GPT-2's way to write the 256 bytes as 256 printable characters."""
    printable = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    others = iter(range(256, 512))
    return [chr(value) if value in printable else chr(next(others)) for value in range(256)]
