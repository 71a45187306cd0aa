"""Rank files: the splitting pattern by size or by name, against the same pattern in Python's `regex`."""

import base64
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from moelab.data.ranks import PATTERNS, pattern_by_size, tokenizer_of_ranks
from moelab.data.tokenizer import encode, end_of_text_id, load_tokenizer
from moelab.errors import InputError

BYTES = {bytes([value]): value for value in range(256)}
TEXT = "HTTPServer's naïveTEST 12345 //path/\r\n\n  x  "


def pieces(tokenizer: Tokenizer, text: str) -> list[str]:
    found = tokenizer.pre_tokenizer.pre_tokenize_str(text)
    return [text[begin:end] for _, (begin, end) in found]


def test_the_pattern_follows_the_size_of_the_vocabulary() -> None:
    """GPT-2 has 50,256 ranks, cl100k_base 100,256, o200k_base 199,998."""
    assert [pattern_by_size(size) for size in (50_256, 100_256, 199_998)] == ["gpt2", "cl100k", "o200k"]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("gpt2", ["HTTPServer", "'s", " naïveTEST", " 12345", " //", "path", "/", "\r\n\n ", " x", "  "]),
        ("cl100k", ["HTTPServer", "'s", " naïveTEST", " ", "123", "45", " //", "path", "/\r\n\n", " ", " x", "  "]),
        ("o200k", ["HTTPServer's", " naïve", "TEST", " ", "123", "45", " //", "path", "/\r\n\n", " ", " x", "  "]),
        (r"\s+|\S", [*"HTTPServer's", " ", *"naïveTEST", " ", *"12345", " ", *"//path/", "\r\n\n  ", "x", "  "]),
    ],
)
def test_each_pattern_splits_its_own_way(pattern: str, expected: list[str]) -> None:
    tokenizer = tokenizer_of_ranks(BYTES, "<|endoftext|>", pattern)
    assert pieces(tokenizer, TEXT) == expected
    assert tokenizer.decode(next(encode(tokenizer, [TEXT]))) == TEXT


@pytest.mark.parametrize("name", ["cl100k", "o200k"])
@given(text=st.text(alphabet="aAéÉß漢١12 \n\r'sS_-/.\t\u0301", max_size=30))
def test_the_named_patterns_split_as_a_regular_expression_does(name: str, text: str) -> None:
    regex = pytest.importorskip("regex")
    tokenizer = tokenizer_of_ranks(BYTES, "<|endoftext|>", name)
    assert pieces(tokenizer, text) == regex.findall(PATTERNS[name], text)


@pytest.fixture
def ranks(tmp_path: Path) -> Path:
    path = tmp_path / "ranks.tiktoken"
    path.write_text("".join(f"{base64.b64encode(token).decode()} {rank}\n" for token, rank in BYTES.items()))
    return path


def test_a_rank_file_takes_a_pattern_and_an_end_of_text(ranks: Path) -> None:
    tokenizer = load_tokenizer(ranks, "<finis>", "o200k")
    assert pieces(tokenizer, "oneTWO") == ["one", "TWO"]
    assert end_of_text_id(tokenizer, "<finis>") == 256
    with pytest.raises(InputError, match=r"pattern: must be gpt2, cl100k, o200k or a regular expression; '\(' is none"):
        load_tokenizer(ranks, pattern="(")


def test_a_tokenizer_json_has_a_pattern_of_its_own(ranks: Path, tmp_path: Path) -> None:
    load_tokenizer(ranks).save(str(tmp_path / "t.json"))
    with pytest.raises(InputError, match=r"pattern: .*t\.json has its own; only rank files need one"):
        load_tokenizer(tmp_path / "t.json", pattern="gpt2")
