"""Byte-level BPE: lossless on any text, deterministic, exact in bytes; given tokenizers are checked before use."""

import base64
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from moelab.data.bpe import train_tokenizer
from moelab.data.tokenizer import END_OF_TEXT, encode, end_of_text_id, load_tokenizer, tokenizer_bytes
from moelab.errors import InputError
from tests.conftest import CHARACTERS

TEXTS = [path.read_text() for path in sorted((Path(__file__).parent / "texts").iterdir())]
TOKENIZER = train_tokenizer(TEXTS, 400)
LENGTHS = tokenizer_bytes(TOKENIZER)


def ids_of(text: str, tokenizer: Tokenizer = TOKENIZER) -> list[int]:
    return next(encode(tokenizer, [text]))


@given(st.text(CHARACTERS))
def test_any_text_survives_the_round_trip(text: str) -> None:
    ids = ids_of(text)
    assert TOKENIZER.decode(ids, skip_special_tokens=False) == text
    assert LENGTHS[np.array(ids, dtype=int)].sum() == len(text.encode())


def test_the_vocabulary_is_exactly_as_large_as_asked() -> None:
    assert TOKENIZER.get_vocab_size() == len(LENGTHS) == 400
    assert end_of_text_id(TOKENIZER) == 0
    assert LENGTHS[0] == 0
    assert LENGTHS[1:].min() == 1


def test_a_text_that_spells_the_end_of_text_is_text() -> None:
    ids = ids_of(f"a {END_OF_TEXT} b")
    assert 0 not in ids
    assert TOKENIZER.decode(ids) == f"a {END_OF_TEXT} b"


def test_no_space_is_put_before_the_text() -> None:
    assert TOKENIZER.decode(ids_of("word")[:1]).startswith("w")


def test_training_is_deterministic_across_processes() -> None:
    folder = Path(__file__).parent / "texts"
    program = (
        "from pathlib import Path; from moelab.data import train_tokenizer\n"
        f"print(train_tokenizer([p.read_text() for p in sorted(Path({str(folder)!r}).iterdir())], 400).to_str())"
    )
    environment = {**os.environ, "TOKENIZERS_PARALLELISM": "false"}
    other = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert other.stdout.strip() == TOKENIZER.to_str()


def test_vocabularies_that_cannot_be() -> None:
    with pytest.raises(InputError, match="at least 257"):
        train_tokenizer(TEXTS, 256)
    with pytest.raises(InputError, match=r"fills only \d+ tokens, 30000 asked"):
        train_tokenizer(TEXTS, 30_000)


def test_a_given_tokenizer_is_the_same(tmp_path: Path) -> None:
    TOKENIZER.save(str(tmp_path / "tokenizer.json"))
    assert ids_of(TEXTS[0], load_tokenizer(tmp_path / "tokenizer.json")) == ids_of(TEXTS[0])


def test_merges_left_out_by_chance_are_for_training_a_model_not_for_its_data(tmp_path: Path) -> None:
    state = json.loads(TOKENIZER.to_str())
    state["model"]["dropout"] = 0.5
    (tmp_path / "tokenizer.json").write_text(json.dumps(state))
    read = load_tokenizer(tmp_path / "tokenizer.json")
    text = "the people of the house and the king of the river " * 20
    assert ids_of(text, read) == ids_of(text)
    assert json.loads(read.to_str())["model"]["dropout"] is None


def test_given_tokenizers_that_cannot_be_used(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    with pytest.raises(InputError, match="cannot read"):
        load_tokenizer(path)
    path.write_text("{}")
    with pytest.raises(InputError, match=r"is not a tokenizer\.json"):
        load_tokenizer(path)
    Tokenizer(models.WordLevel({"a": 0}, unk_token="a")).save(str(path))
    with pytest.raises(InputError, match="not byte-level BPE"):
        load_tokenizer(path)
    bare = Tokenizer(models.BPE(vocab={"a": 0}, merges=[]))
    bare.decoder = decoders.ByteLevel()
    bare.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bare.save(str(path))
    with pytest.raises(InputError, match="no end-of-text token"):
        load_tokenizer(path)


def rank_lines(tokens: list[bytes]) -> str:
    return "".join(f"{base64.b64encode(token).decode()} {rank}\n" for rank, token in enumerate(tokens))


def merge_by_rank(piece: bytes, ranks: dict[bytes, int]) -> list[int]:
    """tiktoken's rule, spelt out: join the neighbours whose joined bytes rank lowest, until none do."""
    if piece in ranks:
        return [ranks[piece]]
    parts = [piece[index : index + 1] for index in range(len(piece))]
    while True:
        found = [(ranks[parts[i] + parts[i + 1]], i) for i in range(len(parts) - 1) if parts[i] + parts[i + 1] in ranks]
        if not found:
            return [ranks[part] for part in parts]
        _, at = min(found)
        parts[at : at + 2] = [parts[at] + parts[at + 1]]


RANKS = [bytes([value]) for value in range(256)] + [b"th", b"he", b"the", b" t", b" the", b"in", b"ing", b"xyzzy"]


@pytest.fixture(scope="module")
def ranked(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    path = tmp_path_factory.mktemp("ranks") / "ranks.tiktoken"
    path.write_text(rank_lines(RANKS))
    return load_tokenizer(path)


@given(text=st.text(alphabet="thexyzing é", max_size=30))
def test_a_rank_file_merges_as_tiktoken_does(ranked: Tokenizer, text: str) -> None:
    splitter = pre_tokenizers.ByteLevel(add_prefix_space=False)
    expected: list[int] = []
    for _, (begin, end) in splitter.pre_tokenize_str(text):
        expected += merge_by_rank(text[begin:end].encode(), {token: rank for rank, token in enumerate(RANKS)})
    ids = ids_of(text, ranked)
    assert ids == expected
    assert tokenizer_bytes(ranked)[np.array(ids, dtype=int)].sum() == len(text.encode())
    assert end_of_text_id(ranked) == len(RANKS)


def test_rank_files_that_cannot_be_used(tmp_path: Path) -> None:
    path = tmp_path / "ranks"
    path.write_text("hello world again\n")
    with pytest.raises(InputError, match="line 1 is no `base64-token rank`"):
        load_tokenizer(path)
    path.write_text(rank_lines(RANKS[1:]))
    with pytest.raises(InputError, match="lacks 1 of the 256"):
        load_tokenizer(path)


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("YWI= 5", "line 265: the rank stands on line 6 already"),
        ("dGg= 900", "line 265: the token stands on line 257 already"),
        ("YWI= -1", "line 265: a rank must be 0 to 9999999, got -1"),
        ("YWI= 1" + "0" * 30, "line 265: a rank must be 0 to 9999999, got 1000"),
        ("YWI= 1" + "0" * 5000, "line 265 is no"),
        ("YWI= 1.5", "line 265 is no"),
    ],
)
def test_ranks_are_used_once_and_within_reason(tmp_path: Path, line: str, complaint: str) -> None:
    path = tmp_path / "ranks"
    path.write_text(rank_lines(RANKS) + line + "\n")
    with pytest.raises(InputError, match=complaint) as caught:
        load_tokenizer(path)
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < 250


def test_the_end_of_text_takes_a_free_rank(tmp_path: Path) -> None:
    path = tmp_path / "ranks"
    path.write_text("".join(line for line in rank_lines(RANKS).splitlines(True) if not line.endswith(" 260\n")))
    tokenizer = load_tokenizer(path)
    assert end_of_text_id(tokenizer) == 260
    assert tokenizer.decode(ids_of("singing the xyzzy", tokenizer)) == "singing the xyzzy"
    tokenizer.save(str(tmp_path / "t.json"))
    again = load_tokenizer(tmp_path / "t.json")
    assert ids_of(f"the{END_OF_TEXT}end", again) == ids_of(f"the{END_OF_TEXT}end", tokenizer)
    assert 260 not in ids_of(f"the{END_OF_TEXT}end", again)


def test_a_given_tokenizer_with_doubtful_ids(tmp_path: Path) -> None:
    state = json.loads(TOKENIZER.to_str())
    path = tmp_path / "t.json"
    for index, complaint in ((5, "share the id 5"), (1 << 30, "must be 0 to 9999999, got 1073741824")):
        token = next(token for token, old in state["model"]["vocab"].items() if old == 300)
        changed = {**state, "model": {**state["model"], "vocab": {**state["model"]["vocab"], token: index}}}
        path.write_text(json.dumps(changed))
        with pytest.raises(InputError, match=complaint):
            load_tokenizer(path)


def test_heavy_libraries_are_imported_only_when_used() -> None:
    program = "import sys, moelab.data; print([m for m in ('torch', 'tokenizers', 'polars') if m in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"
