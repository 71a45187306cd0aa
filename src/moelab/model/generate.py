"""Sampling text from a model, a batch of prompts at a time, with keys and values cached."""

import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from moelab.errors import InputError
from moelab.model.cache import KVCache
from moelab.model.decode import NativeDecode, decodes_natively
from moelab.model.language_model import LanguageModel
from moelab.model.moe import decodes_as_trained, leak_free, leaks


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How `generate` draws: the values that its keywords give."""

    max_new_tokens: int
    temperature: float
    top_k: int | None
    top_p: float | None
    seed: int
    eos: int | None

    def check(self) -> None:
        """Raises InputError for a value out of range."""
        if self.max_new_tokens < 0:
            raise InputError(f"max_new_tokens: must be at least 0, got {self.max_new_tokens}")
        if not math.isfinite(self.temperature) or self.temperature < 0 or 0 < self.temperature < 1e-4:
            allowed = "must be at least 0 (0 takes the likeliest token; else at least 1e-4)"
            raise InputError(f"temperature: {allowed}, got {self.temperature}")
        if self.top_k is not None and self.top_k < 1:
            raise InputError(f"top_k: must be at least 1, got {self.top_k}")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise InputError(f"top_p: must be above 0 and at most 1, got {self.top_p}")


@torch.no_grad()
def generate(
    model: LanguageModel,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int = 0,
    eos: int | None = None,
    use_cache: bool = True,
    mixing: bool = False,
) -> list[list[int]]:
    """The new tokens of every prompt (token ids, of any lengths), `eos` included where it was reached.

    `temperature` 0 takes the likeliest token; `top_k` and `top_p` cut the distribution first. The same seed gives the
    same tokens: each prompt draws by the seed and its place in the batch. Routers that work on groups choose token by
    token, so a prompt's answer does not depend on the others;
    with `mixing` they group the prompts of the batch as in training, the last group filled up with padding.
    Raises InputError for an empty prompt, a value out of range, or mixing where a cache cannot hold the groups.
    """
    how = Sampling(max_new_tokens=max_new_tokens, temperature=temperature, top_k=top_k, top_p=top_p, seed=seed, eos=eos)
    _check_prompts(prompts, model.config.vocab_size)
    how.check()
    if mixing and use_cache and not decodes_as_trained(model.config):
        raise InputError("mixing: this router groups tokens of different positions; it needs use_cache=False")
    with leak_free(model) if not mixing and leaks(model.config) else nullcontext():
        return _generate(model, prompts, how, use_cache)


def _generate(
    model: LanguageModel, prompts: Sequence[Sequence[int]], how: Sampling, use_cache: bool
) -> list[list[int]]:
    device = model.head_weight.device
    generator = [torch.Generator(device).manual_seed(_row_seed(how.seed, row)) for row in range(len(prompts))]
    tokens, mask = _left_padded(prompts, device)
    capacity = tokens.shape[1] + how.max_new_tokens
    cache = None
    if use_cache:
        cache = KVCache(model.config, len(prompts), capacity, model.head_weight.dtype, device)
    step = None
    if cache is not None and decodes_natively(model, len(prompts)):
        step = NativeDecode(model, cache, start=(~mask).sum(1))
    done = torch.zeros(len(prompts), dtype=torch.bool, device=device)
    fresh, new = tokens, list[Tensor]()
    for _ in range(how.max_new_tokens):
        # A mask of ones alone changes nothing: leave it out and take the fast causal path.
        shown = None if all(len(p) == len(prompts[0]) for p in prompts) else mask
        if new and step is not None:
            logits = step(fresh)
        else:
            hidden, _outputs = model.hidden(fresh if use_cache else tokens, cache=cache, mask=shown, mixing=True)
            logits = model.head.logits(hidden[:, -1]).float()
        chosen = sample(logits, temperature=how.temperature, top_k=how.top_k, top_p=how.top_p, generator=generator)
        new.append(chosen)
        if how.eos is not None:
            done |= chosen == how.eos
            if bool(done.all()):
                break
        fresh = chosen[:, None]
        tokens = torch.cat((tokens, fresh), 1)
        mask = torch.cat((mask, torch.ones_like(mask[:, :1])), 1)
    return [_until(row, how.eos) for row in (torch.stack(new, 1).tolist() if new else [[] for _ in prompts])]


def sample(
    logits_BV: Tensor,
    *,
    temperature: float,
    top_k: int | None = None,
    top_p: float | None = None,
    generator: torch.Generator | list[torch.Generator] | None = None,
) -> Tensor:
    """One token per row, (B,). `top_p` keeps the smallest set of tokens whose probability reaches it.

    With a list of generators, one for each row, no row's tokens depend on the other rows.
    """
    if temperature == 0:
        return logits_BV.argmax(-1)
    logits, index = (logits_BV / temperature).sort(-1, descending=True)
    if top_k is not None:
        logits[:, top_k:] = -torch.inf
    probabilities = logits.softmax(-1)
    if top_p is not None:
        before = probabilities.cumsum(-1) - probabilities
        probabilities = probabilities.masked_fill(before >= top_p, 0.0)
    if isinstance(generator, list):
        rows = zip(probabilities, generator, strict=True)
        place = torch.stack([torch.multinomial(row, 1, generator=own) for row, own in rows])
    else:
        place = torch.multinomial(probabilities, 1, generator=generator)
    return index.gather(1, place)[:, 0]


def _row_seed(seed: int, row: int) -> int:
    """The seed itself for the first row; far apart for the others."""
    return (seed + row * 0x9E3779B97F4A7C15) % 2**63


def _left_padded(prompts: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Tokens (B, T) with zeros before the shorter prompts, and the mask of the real ones."""
    longest = max(len(prompt) for prompt in prompts)
    rows = [[0] * (longest - len(prompt)) + list(prompt) for prompt in prompts]
    masks = [[False] * (longest - len(prompt)) + [True] * len(prompt) for prompt in prompts]
    return torch.tensor(rows, device=device), torch.tensor(masks, device=device)


def _until(tokens: list[int], eos: int | None) -> list[int]:
    return tokens[: tokens.index(eos) + 1] if eos in tokens else tokens


def _check_prompts(prompts: Sequence[Sequence[int]], vocab_size: int) -> None:
    if not prompts or not all(prompts):
        raise InputError("prompt: must hold at least one token")
    if any(not 0 <= token < vocab_size for prompt in prompts for token in prompt):
        raise InputError(f"prompt: token ids must be from 0 to {vocab_size - 1}")
