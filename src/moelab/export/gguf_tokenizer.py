"""A byte-level BPE tokenizer as GGUF keeps it: tokens, their types, merges; only what llama.cpp splits the same way."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moelab.errors import InputError
from moelab.files import expect_content, read_json

NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5
"""llama.cpp's types of tokens."""


@dataclass(frozen=True, kw_only=True)
class GGUFTokenizer:
    """Tokens by id with their types, merges in order (`left right`), and the name of the splitting pattern."""

    tokens: list[str]
    types: list[int]
    merges: list[str]
    pre: str = "gpt-2"


def gguf_tokenizer(path: Path, vocab_size: int) -> GGUFTokenizer:
    """Read a tokenizer.json; ids that it lacks become unused tokens.

    Raises InputError for a tokenizer that is not split by GPT-2's pattern alone: llama.cpp knows patterns by name.
    """
    state: dict[str, Any] = read_json(path, "data")
    with expect_content(f"data: {path} is not a byte-level BPE tokenizer of {vocab_size} tokens"):
        _refuse_other_patterns(state)
        return _read_state(state, vocab_size)


def _read_state(state: dict[str, Any], vocab_size: int) -> GGUFTokenizer:
    tokens = [f"[UNUSED_{index}]" for index in range(vocab_size)]
    types = [UNUSED] * vocab_size
    for token, index in state["model"]["vocab"].items():
        tokens[index], types[index] = token, NORMAL
    for added in state.get("added_tokens") or ():
        tokens[added["id"]] = added["content"]
        types[added["id"]] = CONTROL if added["special"] else USER_DEFINED
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in state["model"]["merges"]]
    return GGUFTokenizer(tokens=tokens, types=types, merges=merges)


def _refuse_other_patterns(state: dict[str, Any]) -> None:
    pre = state.get("pre_tokenizer") or {}
    plain = pre.get("type") == "ByteLevel" and not pre.get("add_prefix_space") and pre.get("use_regex", True)
    reason = None
    if not plain:
        reason = "does not split text by GPT-2's pattern alone"
    elif state.get("normalizer") is not None:
        reason = "normalises text first"
    elif state["model"].get("ignore_merges"):
        reason = "takes whole words before it merges"
    if reason:
        raise InputError(f"--to: the tokenizer {reason}, which GGUF's `gpt-2` does not; export it with --to hf")
