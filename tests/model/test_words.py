"""Word experts: what a word is, how the table evens the load, and that prompts, caches and training agree on it."""

from collections import Counter

import pytest
import torch

from moelab.architecture import ModelConfig
from moelab.model import LanguageModel, build_model
from moelab.model.generate import generate
from moelab.model.hash_router import HashRouter, balanced_experts, word_keys
from moelab.model.routing_vocabulary import fill_routing_tables

PARTS = torch.tensor([0, 0, 3, 3, 3, 2, 1, 3], dtype=torch.uint8)
"""Tokens 0 and 1 are marks, 5 is a space and letters, 6 letters and a mark, the others letters."""


def model(router: str = "word", vocab: int = 6, top_k: int = 1) -> LanguageModel:
    moe = {"n_experts": 4, "top_k": top_k, "d_expert": 8, "router": router, "routing_vocab": vocab}
    sizes = {"vocab_size": 8, "d_model": 16, "n_layers": 2, "n_heads": 2, "moe": moe}
    return build_model(ModelConfig.parse(sizes), seed=0)


def text(length: int = 400) -> torch.Tensor:
    skewed = torch.tensor([8.0, 1, 6, 2, 1, 4, 1, 3])
    return torch.multinomial(skewed, length, replacement=True, generator=torch.Generator().manual_seed(0))


def filled(**options: object) -> LanguageModel:
    found = model(**options)  # type: ignore[arg-type]
    fill_routing_tables(found, text().split(150), PARTS)
    return found


def spelled(ids: list[int]) -> list[tuple[int, ...]]:
    """The word so far at every token, by the definition."""
    words: list[tuple[int, ...]] = []
    for t, token in enumerate(ids):
        joins = t > 0 and PARTS[token] & 1 and PARTS[ids[t - 1]] & 2
        words.append((*words[-1], token) if joins else (token,))
    return words


def test_a_key_is_the_word_so_far() -> None:
    ids = text()
    router = filled()
    previous = torch.cat((torch.tensor([-1]), ids[:-1]))
    keys = word_keys(ids[None], router.begins_word(ids[None], previous[None]))[0][0].tolist()
    words = spelled(ids.tolist())
    pairs = set(zip(words, keys, strict=True))
    assert len(pairs) == len(set(words)) == len(set(keys))
    assert max(map(len, words)) > 3


def test_keys_go_on_across_a_cut() -> None:
    ids, router = text(60)[None], filled()
    previous = torch.cat((torch.full((1, 1), -1), ids[:, :-1]), 1)
    begins = router.begins_word(ids, previous)
    whole, _ = word_keys(ids, begins)
    carried, parts = None, []
    for part, starts in zip(ids.split(7, 1), begins.split(7, 1), strict=True):
        keys, carried = word_keys(part, starts, carried)
        parts.append(keys)
    assert torch.equal(torch.cat(parts, 1), whole)


def test_the_table_evens_the_load() -> None:
    counts = [40, 30, 20, 10, 10, 10]
    assert balanced_experts(counts, 3, 1) == [[0], [1], [2], [2], [1], [2]]
    assert all(len(set(pair)) == 2 for pair in balanced_experts(counts, 3, 2))


@pytest.mark.parametrize("router", ["hash", "word"])
def test_the_commonest_keys_are_in_the_table(router: str) -> None:
    found = filled(router=router, vocab=5)
    first = next(m for m in found.modules() if isinstance(m, HashRouter))
    ids = text().tolist()
    # chunks of 150 tokens: words are not joined across them
    parts = [part.tolist() for part in text().split(150)]
    seen = Counter(ids) if router == "hash" else Counter(word for part in parts for word in spelled(part))
    assert len(set(first.table_keys.tolist())) == 5
    assert torch.equal(first.table_keys, first.table_keys.sort().values)
    if router == "hash":
        assert set(first.table_keys.tolist()) == {token for token, _ in seen.most_common(5)}
    load = found.loss(text()[None], text()[None], collect_routing=True).routing[0].max_violation
    plain = model(router=router, vocab=5).loss(text()[None], text()[None], collect_routing=True).routing[0]
    assert load < plain.max_violation


def test_a_table_larger_than_the_text_and_an_empty_one() -> None:
    small = filled(router="hash", vocab=50)
    empty = model(router="hash", vocab=50)
    plain = build_model(empty.config.replace(moe={**empty.config.moe.to_dict(), "routing_vocab": None}), seed=0)  # type: ignore[union-attr]
    ids = text(40)[None]
    assert torch.isfinite(small(ids)).all()
    assert torch.equal(empty(ids), plain(ids))


@pytest.mark.parametrize("top_k", [1, 2])
def test_a_batch_of_prompts_equals_each_alone_with_and_without_a_cache(top_k: int) -> None:
    found = filled(top_k=top_k)
    prompts = [[2, 3, 4, 0, 5], [7, 7], [3]]
    together = generate(found, prompts, max_new_tokens=10, temperature=0)
    assert together == generate(found, prompts, max_new_tokens=10, temperature=0, use_cache=False)
    assert together == [generate(found, [p], max_new_tokens=10, temperature=0)[0] for p in prompts]


def test_the_table_is_saved_with_the_model() -> None:
    found, other = filled(), model()
    other.load_state_dict(found.state_dict())
    ids = text(40)[None]
    assert torch.equal(other(ids), found(ids))
