"""The routers: what each one sees, its options, what it adds to a model's counts, and why engines do not know it.

A new router is one entry here, one module registered in `model/moe.py`, and its reference in the tests.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

Router = Literal["token_choice", "expert_choice", "hash", "word", "random", "soft", "mixture_of_tokens"]
"""Which side chooses. `hash` routes by the token's id, `word` by the word it belongs to (or, without `routing_vocab`,
by it and the token before), `random` by id and position (a control); they learn nothing. Soft MoE (arXiv 2308.00951)
and Mixture of Tokens (2310.15961) mix tokens."""

OPTIONS = (
    "capacity_factor",
    "bias_update",
    "grouping",
    "group_size",
    "normalize_scores",
    "routing_vocab",
    "n_group",
    "topk_group",
    "group_score",
    "hash_layers",
    "capacity_drop",
    "input_gates",
    "temperature",
    "learned_temperature",
    "separate_emit",
    "mixing",
)
"""Fields of a MoE layer that belong to some routers alone."""

Sizes = dict[str, int]


class Layer(Protocol):
    """What the sizes of a router depend on: fields of `MoEConfig`."""

    @property
    def n_experts(self) -> int: ...
    @property
    def slots(self) -> int: ...
    @property
    def mixing(self) -> str | None: ...
    @property
    def separate_emit(self) -> bool | None: ...
    @property
    def learned_temperature(self) -> bool | None: ...


def _one_column_per_expert(moe: Layer) -> Sizes:
    return {}


def _nothing_learned(moe: Layer) -> Sizes:
    return {"router_off": 1}


def _soft(moe: Layer) -> Sizes:
    mixtures = moe.n_experts * moe.slots
    return {"router_off": 1, "router_columns": mixtures, "mixing_columns": 2 * mixtures}


def _mixture_of_tokens(moe: Layer) -> Sizes:
    return {
        "router_off": int(moe.mixing == "uniform"),
        "router_columns": moe.n_experts if moe.separate_emit else 0,
        "router_scalars": 2 if moe.learned_temperature else 0,
        "mixing_columns": 2 * moe.n_experts * moe.slots,
    }


@dataclass(frozen=True, kw_only=True)
class RouterTraits:
    """What the rooms ask of a router.

    `learned`: it has weights; `grouped`: it sees several tokens at once; `mixes`: experts compute mixtures of tokens.
    `options` are those of `OPTIONS` that it has. `not_exported` is why no class of transformers computes it, empty
    where one does. `sizes` gives what a router has beside, or instead of, its one column per expert: `router_off`: no
    such columns; `router_columns`: further ones; `mixing_columns`: weighted sums of tokens per token, both ways;
    `router_scalars`: learned temperatures.
    """

    options: tuple[str, ...]
    learned: bool = True
    grouped: bool = False
    mixes: bool = False
    not_exported: str = ""
    sizes: Callable[[Layer], Sizes] = _one_column_per_expert


def _unlearned(not_exported: str, *options: str) -> RouterTraits:
    return RouterTraits(options=options, learned=False, not_exported=not_exported, sizes=_nothing_learned)


ROUTERS: dict[str, RouterTraits] = {
    "token_choice": RouterTraits(
        options=(
            "capacity_factor",
            "capacity_drop",
            "bias_update",
            "normalize_scores",
            "n_group",
            "topk_group",
            "group_score",
            "hash_layers",
            "input_gates",
        )
    ),
    "expert_choice": RouterTraits(
        options=("grouping", "group_size"), grouped=True, not_exported="experts choose tokens of a whole group"
    ),
    "hash": _unlearned("a hash of the token id chooses the experts", "routing_vocab"),
    "word": _unlearned("experts go by the word", "routing_vocab"),
    "random": _unlearned("experts go by the position"),
    "soft": RouterTraits(
        options=("grouping", "group_size"),
        grouped=True,
        mixes=True,
        not_exported="it mixes the tokens of a group",
        sizes=_soft,
    ),
    "mixture_of_tokens": RouterTraits(
        options=("group_size", "temperature", "learned_temperature", "separate_emit", "mixing"),
        grouped=True,
        mixes=True,
        not_exported="it mixes the tokens of a group; a run with train.transition ends as token choice and exports",
        sizes=_mixture_of_tokens,
    ),
}
"""Every router by the name that `router:` gives it."""
