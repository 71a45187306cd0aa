"""Repeated data under any law in N and D: its tokens become Muennighoff's effective tokens (arXiv 2305.16264).

The decay of repeated tokens was measured on dense models; composing it with a MoE law is our assumption.
"""

from dataclasses import replace
from typing import Any

import numpy as np

from moelab.errors import InputError
from moelab.laws.design import Design, Refusal
from moelab.laws.forms import Array, minimum
from moelab.laws.law import Law, Values
from moelab.laws.muennighoff2023 import LAWS, worth

SUFFIX = "+reuse"
R_D = float((LAWS[0].published or {})["R_D"])


def effective_tokens(tokens: Any, unique_tokens: Any, r_d: Any = R_D) -> Array:
    """D' = U + U R (1 - exp(-(D/U - 1) / R)): what D tokens, U of them distinct, are worth in fresh ones."""
    tokens = np.asarray(tokens) * 1.0
    unique = minimum(np.asarray(unique_tokens) * 1.0, tokens)
    return worth(unique, tokens / unique, r_d)[0]


def with_data_reuse(law: Law) -> Law:
    """The same law with `unique_tokens` as a variable and the decay R_D as a coefficient (published: 15.39)."""
    if "tokens" not in law.variables or "unique_tokens" in law.variables:
        raise InputError(f"{law.id}: has no tokens to repeat, or models repetition already")

    def formula(c: Values, v: Values) -> tuple[Array, Any]:
        tokens, unique = v["tokens"], minimum(v["unique_tokens"], v["tokens"])
        fresh, by_r, _ = worth(unique, tokens / unique, c["R_D"])
        loss, inner = law.formula(c, {**v, "tokens": fresh})

        def gradient() -> dict[str, Array]:
            step = 1e-5
            up, down = (law.formula(c, {**v, "tokens": fresh * (1 + h)})[0] for h in (step, -step))
            return {**inner(), "R_D": (up - down) / (2 * step * fresh) * by_r}

        return loss, gradient

    def convert(design: Design) -> tuple[dict[str, Array], list[Refusal]]:
        variables, refusals = law.convert(design)
        return {**variables, "unique_tokens": design.unique_tokens}, refusals

    def at_compute(params: Array, flops: float, settings: Values) -> dict[str, Array]:
        values = law.at_compute(params, flops, settings) if law.at_compute else {}
        return {**values, "unique_tokens": np.minimum(values["tokens"], settings.get("unique_tokens", np.inf))}

    return replace(
        law,
        id=law.id + SUFFIX,
        title=f"{law.title}, with repeated data",
        form=f"{law.form}, D replaced by D' = U + U R_D (1 - exp(-(D/U - 1)/R_D))",
        variables=(*law.variables, "unique_tokens"),
        coefficients=(*law.coefficients, "R_D"),
        formula=formula,
        convert=convert,
        published=None if law.published is None else {**law.published, "R_D": R_D},
        note="; ".join(filter(None, (law.note, "repeated tokens as in arXiv 2305.16264: for MoE our assumption"))),
        meaning={**law.meaning, "tokens": "tokens processed, repeats counted", "unique_tokens": "distinct tokens"},
        ranges={**law.ranges, "unique_tokens": None},
        positive=(*law.positive, "R_D"),
        search={**law.search, "R_D": (1.0, 300.0)},
        bounds={**law.bounds, "R_D": (0.01, 1e5)},
        hold=("R_D", *law.hold),
        at_compute=at_compute if law.at_compute else None,
        settings=(*law.settings, "unique_tokens"),
    )
