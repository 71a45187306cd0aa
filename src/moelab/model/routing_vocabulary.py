"""The look-up tables of hash and word experts (arXiv 2311.10768), counted on training text before the first step."""

from collections.abc import Iterable

import torch
from torch import Tensor

from moelab.model.hash_router import HashRouter, TokenContext, word_keys
from moelab.model.language_model import LanguageModel


@torch.no_grad()
def fill_routing_tables(model: LanguageModel, chunks: Iterable[Tensor], word_parts: Tensor | None = None) -> None:
    """Give the commonest keys of some text, chunks (T,) of token ids, their experts in every layer with a table.

    `word_parts` (V,) uint8 holds how tokens join to words, see `LanguageModel`; token ids alone need none. A model
    without tables is left alone.
    """
    routers = [module for module in model.modules() if isinstance(module, HashRouter) and module.config.routing_vocab]
    if not routers:
        return
    if model.routes_by_words and word_parts is not None:
        model.word_parts.copy_(word_parts)
    counts: dict[int, int] = {}
    for chunk in chunks:
        ids = chunk[None].to(model.head_weight.device)
        found, n = routers[0].keys(_context(model, ids)).unique(return_counts=True)
        for key, count in zip(found.tolist(), n.tolist(), strict=True):
            counts[key] = counts.get(key, 0) + count
    routers[0].fill_table(torch.tensor(list(counts), dtype=torch.int64), list(counts.values()))
    for router in routers[1:]:
        router.table_keys.copy_(routers[0].table_keys)
        router.table_experts.copy_(routers[0].table_experts)


def _context(model: LanguageModel, ids: Tensor) -> TokenContext:
    previous = torch.cat((torch.full_like(ids[:, :1], -1), ids[:, :-1]), 1)
    words = word_keys(ids, model.begins_word(ids, previous))[0] if model.routes_by_words else None
    return TokenContext(ids=ids, previous=previous, positions=torch.zeros_like(ids), words=words)
