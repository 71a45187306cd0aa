"""Routers that learn nothing: look-ups by token id (arXiv 2106.04426), by word (2311.10768), or by position.

Every token has a 64-bit key. With a routing vocabulary the commonest keys of the training text get their experts from
a table that evens the load; all other keys, and all keys without one, get theirs from a pseudo-random hash.
"""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from moelab.architecture import MoEConfig
from moelab.model.router import Routing

_MIXERS = (-0x61C8864680B583EB, -0x40A7B892E31B1A47, -0x6B2FB644ECCEEE15)
"""Odd 64-bit constants of splitmix64, as signed numbers."""
UNUSED = torch.iinfo(torch.int64).max
"""Stands in the places of a table that the text did not fill."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenContext:
    """What these routers see of a batch, (B, T) each: ids, the ids one place earlier (-1: none), positions, and the
    keys of the words so far where the router has a routing vocabulary of words."""

    ids: Tensor
    previous: Tensor
    positions: Tensor
    words: Tensor | None = None

    def from_position(self, start: int) -> "TokenContext":
        """That of the tokens from this place on, (B, T - start) each."""
        words = None if self.words is None else self.words[:, start:]
        places = (self.ids[:, start:], self.previous[:, start:], self.positions[:, start:])
        return TokenContext(ids=places[0], previous=places[1], positions=places[2], words=words)


class HashRouter(nn.Module):
    """K different experts per key, all gates equal (1/K when normalised, else 1).

    `table_keys` (R,) in rising order and `table_experts` (R, K) are the routing vocabulary, saved with the model.
    """

    table_keys: Tensor
    table_experts: Tensor

    def __init__(self, config: MoEConfig) -> None:
        super().__init__()
        self.config = config
        if config.routing_vocab:
            self.register_buffer("table_keys", torch.zeros(config.routing_vocab, dtype=torch.int64))
            self.register_buffer("table_experts", torch.zeros(config.routing_vocab, config.top_k, dtype=torch.int64))

    def forward(self, context: TokenContext) -> Routing:
        n_experts, top_k = self.config.n_experts, self.config.top_k
        experts = torch.arange(n_experts, device=context.ids.device)
        keys = self.keys(context).flatten()
        scores = pseudo_random(keys[:, None], experts)
        chosen = scores.topk(top_k, dim=-1).indices
        if self.config.routing_vocab:
            chosen = self._looked_up(keys, chosen)
        gate = self.config.routed_scaling / (top_k if self.config.normalize_gates else 1)
        uniform = torch.full_like(scores, 1 / n_experts)
        gates = torch.full_like(scores[:, :top_k], gate)
        return Routing(logits=torch.zeros_like(scores), scores=uniform, chosen=chosen, gates=gates, by_score=False)

    def keys(self, context: TokenContext) -> Tensor:
        """One integer per token, (B, T)."""
        if self.config.router == "hash":
            return context.ids
        if context.words is not None:
            return context.words
        if self.config.router == "word":
            return context.ids + (context.previous + 2) * 2**24
        return context.ids + (context.positions + 1) * 2**24

    def fill_table(self, keys: Tensor, counts: Sequence[int]) -> None:
        """Take the routing vocabulary from keys (n,) that are all different and how often each occurs."""
        size = self.config.routing_vocab or 0
        common = sorted(zip(counts, keys.tolist(), strict=True), key=lambda pair: (-pair[0], pair[1]))[:size]
        experts = balanced_experts([count for count, _ in common], self.config.n_experts, self.config.top_k)
        self.table_keys.fill_(UNUSED)
        self.table_experts.zero_()
        order = sorted(range(len(common)), key=lambda place: common[place][1])
        self.table_keys[: len(order)] = torch.tensor([common[place][1] for place in order], dtype=torch.int64)
        self.table_experts[: len(order)] = torch.tensor([experts[place] for place in order], dtype=torch.int64)

    def _looked_up(self, keys: Tensor, hashed: Tensor) -> Tensor:
        """The experts (T, K) of keys that the table has, those of the hash for the others."""
        place = torch.searchsorted(self.table_keys, keys).clamp(max=len(self.table_keys) - 1)
        known = (self.table_keys[place] == keys) & self.table_keys.any()
        return torch.where(known[:, None], self.table_experts[place], hashed)


def balanced_experts(counts: Sequence[int], n_experts: int, top_k: int) -> list[list[int]]:
    """For keys in falling order of their counts: the K experts that have least to do so far, one key after another."""
    loads = [(0, expert) for expert in range(n_experts)]
    chosen = []
    for count in counts:
        least = [heapq.heappop(loads) for _ in range(top_k)]
        for load, expert in least:
            heapq.heappush(loads, (load + count, expert))
        chosen.append([expert for _, expert in least])
    return chosen


def word_keys(ids: Tensor, begins: Tensor, before: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """A key per token, (B, T), of its word up to and including it; and what `before` a continuation should be, (B, 2).

    `begins` (B, T) marks the tokens that begin a word. The key sums a hash of (id, place in the word) over the word's
    tokens so far; `before` is the key and the length of the word that the first token may continue.
    """
    batch, length = ids.shape
    places = torch.arange(length, device=ids.device).expand(batch, -1)
    start = torch.where(begins, places, -1).cummax(1).values
    carried = torch.zeros(batch, 2, dtype=torch.int64, device=ids.device) if before is None else before
    inside = torch.where(start >= 0, places - start, places + carried[:, 1:])
    total = _mixed(ids, inside).cumsum(1)
    earlier = torch.where(start > 0, total.gather(1, (start - 1).clamp(min=0)), 0)
    keys = total - earlier + torch.where(start < 0, carried[:, :1], 0)
    return keys, torch.stack((keys[:, -1], inside[:, -1] + 1), 1)


def pseudo_random(keys: Tensor, salts: Tensor) -> Tensor:
    """Numbers in [0, 1) that depend on key and salt alone, the same on every machine."""
    return ((_mixed(keys, salts) >> 33) & 0xFFFFFF).float() / 2**24


def _mixed(keys: Tensor, salts: Tensor) -> Tensor:
    """64 well-mixed bits (splitmix64) of key and salt."""
    x = keys * _MIXERS[0] + (salts + 1) * _MIXERS[1]
    for shift, mixer in ((30, _MIXERS[1]), (27, _MIXERS[2])):
        x = (x ^ ((x >> shift) & ((1 << (64 - shift)) - 1))) * mixer
    return x
