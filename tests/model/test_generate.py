"""Cached decoding equals uncached, batches equal single prompts, sampling obeys its options."""

import pytest
import torch

from moelab.architecture import ModelConfig
from moelab.errors import InputError
from moelab.model import LanguageModel, build_model
from moelab.model.cache import KVCache
from moelab.model.generate import generate, sample

PROMPTS = [[5, 9, 2, 7], [1, 3], [8, 8, 8]]


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    moe = {"n_experts": 4, "top_k": 2, "d_expert": 16}
    sizes = {"vocab_size": 40, "d_model": 32, "n_layers": 3, "n_heads": 4, "n_kv_heads": 2, "moe": moe}
    return build_model(ModelConfig.parse(sizes), seed=4).eval()


def test_cached_logits_equal_uncached(model: LanguageModel) -> None:
    tokens = torch.randint(0, 40, (2, 10), generator=torch.Generator().manual_seed(0))
    expected = model(tokens)
    cache = KVCache(model.config, 2, 10, torch.float32, torch.device("cpu"))
    pieces = [model(part, cache=cache) for part in tokens.split([4, 3, 1, 1, 1], dim=1)]
    torch.testing.assert_close(torch.cat(pieces, 1), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_cached_tokens_equal_uncached(model: LanguageModel, temperature: float) -> None:
    cached = generate(model, PROMPTS, max_new_tokens=12, temperature=temperature, seed=1)
    uncached = generate(model, PROMPTS, max_new_tokens=12, temperature=temperature, seed=1, use_cache=False)
    assert cached == uncached
    assert [len(row) for row in cached] == [12, 12, 12]


def test_a_batch_equals_its_prompts_one_by_one(model: LanguageModel) -> None:
    together = generate(model, PROMPTS, max_new_tokens=8, temperature=0)
    alone = [generate(model, [prompt], max_new_tokens=8, temperature=0)[0] for prompt in PROMPTS]
    assert together == alone


def test_the_seed_decides(model: LanguageModel) -> None:
    first = generate(model, PROMPTS, max_new_tokens=16, seed=1)
    torch.manual_seed(99)
    assert generate(model, PROMPTS, max_new_tokens=16, seed=1) == first
    assert generate(model, PROMPTS, max_new_tokens=16, seed=2) != first


def test_a_sampled_answer_does_not_depend_on_the_other_prompts(model: LanguageModel) -> None:
    together = generate(model, PROMPTS, max_new_tokens=8, seed=3)
    assert generate(model, [PROMPTS[0]], max_new_tokens=8, seed=3)[0] == together[0]
    assert generate(model, [[2], PROMPTS[1], [4, 4], [7]], max_new_tokens=8, seed=3)[1] == together[1]
    same = generate(model, [PROMPTS[0]] * 4, max_new_tokens=8, seed=3)
    assert len({tuple(row) for row in same}) > 1


def test_it_stops_at_eos(model: LanguageModel) -> None:
    greedy = generate(model, [PROMPTS[0]], max_new_tokens=10, temperature=0)[0]
    eos = greedy[3]
    stopped = generate(model, [PROMPTS[0]], max_new_tokens=10, temperature=0, eos=eos)[0]
    assert stopped == greedy[: greedy.index(eos) + 1]
    assert generate(model, [PROMPTS[0]], max_new_tokens=0) == [[]]


def test_top_k_and_top_p_cut_the_tail() -> None:
    logits = torch.tensor([[0.1, 0.5, 0.3, 0.1]]).log().expand(400, 4)
    generator = torch.Generator().manual_seed(0)
    assert set(sample(logits, temperature=1, top_k=2, generator=generator).tolist()) == {1, 2}
    assert set(sample(logits, temperature=1, top_p=0.4, generator=generator).tolist()) == {1}
    assert set(sample(logits, temperature=1, top_p=0.7, generator=generator).tolist()) == {1, 2}
    assert set(sample(logits, temperature=1, generator=generator).tolist()) == {0, 1, 2, 3}
    shares = torch.bincount(sample(logits.repeat(50, 1), temperature=1, generator=generator), minlength=4) / 20000
    torch.testing.assert_close(shares, torch.tensor([0.1, 0.5, 0.3, 0.1]), rtol=0, atol=0.02)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompts": []}, "prompt: must hold"),
        ({"prompts": [[1], []]}, "prompt: must hold"),
        ({"prompts": [[40]]}, "token ids must be from 0 to 39"),
        ({"temperature": -1}, "temperature: must be at least 0"),
        ({"top_k": 0}, "top_k: must be at least 1"),
        ({"top_p": 0}, "top_p: must be above 0"),
        ({"max_new_tokens": -1}, "max_new_tokens: must be at least 0"),
    ],
)
def test_bad_input(model: LanguageModel, changes: dict[str, object], message: str) -> None:
    options = {"prompts": [[1]], "max_new_tokens": 1, **changes}
    with pytest.raises(InputError, match=message):
        generate(model, **options)  # type: ignore[arg-type]
