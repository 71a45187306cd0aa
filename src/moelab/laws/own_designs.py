"""What a law of one's own reads of a design, and the designs that it describes: dense, MoE or both."""

from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any

import numpy as np

from moelab.laws.design import Design, Refusal
from moelab.laws.forms import Array
from moelab.laws.law import Converter, Law

_COUNTED: dict[str, Callable[[Design], Any]] = {
    "params_non_embedding": lambda d: d.params_without_router,
    "params_active_non_embedding": lambda d: d.params_active_without_router,
    "activation_rate": lambda d: d.count.params_active_non_embedding / np.asarray(d.count.params_non_embedding, float),
    "expert_activation": lambda d: 1 / d.expert_ratio,
    "active_experts": lambda d: d.top_k + d.n_shared,
    "n_shared_experts": lambda d: d.n_shared,
    "shared_share": lambda d: d.n_shared / (d.top_k + d.n_shared),
    "epochs": lambda d: d.tokens / d.unique_tokens,
    "flops_per_token": lambda d: d.train_flops / d.tokens,
    "d_model": lambda d: np.asarray(d.shape.d_model, float),
    "n_layers": lambda d: np.asarray(d.shape.n_layers, float),
}
"""What a table's columns are of a design, beside its own properties; as `columns.RULES` derives them from a table."""
ASSUMED = "assumed"
"""In the definition of a law of Python that does not state the kinds of models it covers."""


def design_converter(variables: tuple[str, ...]) -> Converter:
    """A converter that takes each variable from a design, and refuses where a design has none of that name."""

    def convert(design: Design) -> tuple[dict[str, Array], list[Refusal]]:
        found: dict[str, Array] = {}
        refusals = []
        for name in variables:
            value = _COUNTED[name](design) if name in _COUNTED else getattr(design, name, None)
            found[name] = np.full(np.shape(design.tokens), np.nan) if value is None else value
            if value is None:
                refusals.append(Refusal(f"a design has no {name}; give the law's variables by --set", np.array(True)))
        return found, refusals

    return convert


def as_fitted(law: Law, kinds: Collection[str]) -> Law:
    """The law as the kinds of the runs that it was fitted to (dense, moe) allow.

    A formula without a variable that separates MoE from dense, fitted to dense runs, would predict for a MoE model
    what a dense one of its size has: it covers dense models only, unless its `covers` states otherwise.
    """
    if not assumes_dense(law) or "moe" in kinds:
        return law
    return replace(
        law, covers_moe=False, convert=for_dense_alone(law.convert, "none of its runs was a MoE model", False)
    )


def assumes_dense(law: Law) -> bool:
    """Whether nothing states or shows that a formula of one's own describes MoE models."""
    definition = law.definition or {}
    unstated = "covers" not in definition if "formula" in definition else definition.get("kinds") == ASSUMED
    return unstated and law.covers_moe and not law.separates_moe


def for_dense_alone(convert: Converter, why: str, published_only: bool) -> Converter:
    """A converter that refuses MoE models, too."""
    reason = (
        f"no variable of this law separates MoE from dense, and {why}; 'covers: both' in its file applies it to MoE"
    )

    def converter(design: Design) -> tuple[dict[str, Array], list[Refusal]]:
        found, refusals = convert(design)
        return found, [*refusals, Refusal(reason, ~design.dense, published_only)]

    return converter
