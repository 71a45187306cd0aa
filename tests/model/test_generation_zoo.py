"""Generation with every router: cached equals uncached, a batch equals its prompts, and mixing is as in training."""

from typing import Any

import pytest
import torch

from moelab.architecture import ModelConfig
from moelab.errors import InputError
from moelab.model import LanguageModel, build_model
from moelab.model.cache import KVCache
from moelab.model.generate import generate

PROMPTS = [[5, 9, 2, 7], [1, 3], [8, 8, 8]]
ROUTERS: dict[str, dict[str, Any]] = {
    "token choice": {},
    "sigmoid, normalised before": {"score": "sigmoid", "normalize_scores": True},
    "capacity": {"capacity_factor": 0.5},
    "bias, shared": {"bias_update": 0.1, "n_shared_experts": 1, "d_shared": 8, "shared_gate": True},
    "hash": {"router": "hash"},
    "hash table": {"router": "hash", "routing_vocab": 9},
    "word": {"router": "word"},
    "words": {"router": "word", "routing_vocab": 9},
    "random": {"router": "random"},
    "expert choice": {"router": "expert_choice", "output_norm": True},
    "expert choice, sequence": {"router": "expert_choice", "grouping": "sequence", "group_size": 4},
    "soft": {"router": "soft", "grouping": "sequence", "group_size": 6},
    "mixture": {"router": "mixture_of_tokens", "group_size": 2},
    "mixture, hard": {"router": "mixture_of_tokens", "group_size": 2, "mixing": "hard"},
    "mixture, uniform": {"router": "mixture_of_tokens", "group_size": 2, "mixing": "uniform"},
}
BY_POSITION = ["expert choice", "mixture", "mixture, hard", "mixture, uniform"]


def model(name: str) -> LanguageModel:
    moe = {"n_experts": 4, "top_k": 2, "d_expert": 8, **ROUTERS[name]}
    sizes = {"vocab_size": 32, "d_model": 16, "n_layers": 2, "n_heads": 2, "moe": moe}
    return build_model(ModelConfig.parse(sizes), seed=1).eval()


@pytest.mark.parametrize("name", ROUTERS)
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_cached_equals_uncached_and_the_seed_decides(name: str, temperature: float) -> None:
    options: dict[str, Any] = {"max_new_tokens": 6, "temperature": temperature, "seed": 3}
    cached = generate(model(name), PROMPTS, **options)
    assert cached == generate(model(name), PROMPTS, **options, use_cache=False)
    assert cached == generate(model(name), PROMPTS, **options)


@pytest.mark.parametrize("name", ROUTERS)
def test_a_batch_equals_its_prompts_one_by_one(name: str) -> None:
    """Whatever the router, the other prompts of a batch and their padding change nothing."""
    together = generate(model(name), PROMPTS, max_new_tokens=6, temperature=0)
    assert together == [generate(model(name), [p], max_new_tokens=6, temperature=0)[0] for p in PROMPTS]


@pytest.mark.parametrize("name", BY_POSITION)
@torch.no_grad()
def test_mixing_with_a_cache_equals_the_forward_pass_of_training(name: str) -> None:
    found = model(name)
    tokens = torch.randint(0, 32, (3, 9), generator=torch.Generator().manual_seed(0))
    cache = KVCache(found.config, 3, 9, torch.float32, torch.device("cpu"))
    parts = [found.hidden(part, cache=cache, mixing=True)[0] for part in tokens.split([4, 1, 1, 3], dim=1)]
    torch.testing.assert_close(torch.cat(parts, 1), found.hidden(tokens)[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", BY_POSITION)
def test_mixing_generates_in_padded_groups(name: str) -> None:
    """Three prompts in groups of two: the last group is filled up, and shorter prompts with it."""
    options: dict[str, Any] = {"max_new_tokens": 6, "temperature": 0, "mixing": True}
    assert generate(model(name), PROMPTS, **options) == generate(model(name), PROMPTS, **options, use_cache=False)


@pytest.mark.parametrize("name", ["capacity", "soft", "expert choice, sequence"])
def test_a_cache_cannot_hold_groups_of_several_positions(name: str) -> None:
    with pytest.raises(InputError, match="mixing: this router groups tokens of different positions"):
        generate(model(name), PROMPTS, max_new_tokens=2, mixing=True)
    rows = generate(model(name), PROMPTS, max_new_tokens=2, mixing=True, use_cache=False)
    assert [len(row) for row in rows] == [2, 2, 2]
