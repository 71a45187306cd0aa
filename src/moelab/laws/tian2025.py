"""Efficiency leverage of MoE (Tian et al. 2025, Ling, arXiv 2507.17702): how many times less compute than dense.

EL = C_dense / C_moe at equal loss = Â^(a + d log10 C + gamma (log2 G)^2 + beta log2 G), with Â the saturated activation
ratio of experts; these log bases are the only ones that reproduce EL(A = 3.1 %, G = 12, C = 1e22) = 7.24.
"""

from typing import Any

import numpy as np

from moelab.laws.design import Design, Refusal
from moelab.laws.forms import Array, saturate
from moelab.laws.law import Law, Values
from moelab.laws.rules import Rule


def formula(c: Values, v: Values) -> tuple[Array, Any]:
    """The leverage."""
    log_g, log_c = np.log2(v["granularity_ling"]), np.log10(v["train_flops"])
    ahat, by_start, by_max = saturate(v["expert_activation"], c["A_start"], c["A_max"])
    log_a = np.log(ahat)
    power = c["a"] + c["d"] * log_c + c["gamma"] * log_g**2 + c["beta"] * log_g
    leverage = np.exp(power * log_a)

    def gradient() -> dict[str, Array]:
        by_power, by_a = leverage * log_a, leverage * power / ahat
        return {
            "a": by_power,
            "d": by_power * log_c,
            "gamma": by_power * log_g**2,
            "beta": by_power * log_g,
            "A_start": by_a * by_start,
            "A_max": by_a * by_max,
        }

    return leverage, gradient


def convert(design: Design) -> tuple[dict[str, Array], list[Refusal]]:
    """A = (K + E_s) / (E + E_s), G = 2 d_model / d_expert, C without the output head."""
    shared = design.n_shared
    return {
        "expert_activation": (design.top_k + shared) / (design.n_experts + shared),
        "granularity_ling": 2 * np.asarray(design.shape.d_model, float) / np.maximum(design.shape.d_expert, 1),
        "train_flops": design.train_flops_without_head,
    }, []


def at_compute(params: Array, flops: float, settings: Values) -> dict[str, Array]:
    """The paper's MoE rule for data: D = 5.2232 C^0.4905 (C = M D, M non-embedding FLOPs per token)."""
    same = 0 * params
    return {
        "expert_activation": settings["expert_activation"] + same,
        "granularity_ling": settings["granularity_ling"] + same,
        "train_flops": flops + same,
        "tokens": 5.2232 * flops**0.4905 + same,
    }


LAWS = (
    Law(
        id="tian2025",
        title="Efficiency leverage (Ling)",
        citation="Tian et al. 2025, arXiv 2507.17702",
        form="EL = Â^(a + d log10 C + gamma (log2 G)^2 + beta log2 G)",
        variables=("expert_activation", "granularity_ling", "train_flops"),
        coefficients=("a", "d", "gamma", "beta", "A_start", "A_max"),
        formula=formula,
        convert=convert,
        kind="leverage",
        published={"a": 1.23, "d": -0.0761, "gamma": 0.0167, "beta": -0.117, "A_start": 0.0163, "A_max": 5.28e16},
        mark="read",
        note="predicts the compute advantage over a dense law, not a loss; bases of the logarithms recomputed",
        meaning={
            "expert_activation": "A = (K + E_s) / (E + E_s): experts in use over experts, shared ones counted",
            "granularity_ling": "2 d_model / d_expert",
            "train_flops": "C = M D, M the non-embedding training FLOPs per token",
        },
        flops="M = non-embedding FLOPs per token, forward and backward, attention scores included",
        ranges={"train_flops": (3e18, 3e20), "expert_activation": (0.008, 1.0), "granularity_ling": (2.0, 16.0)},
        covers_dense=False,
        linear=("a", "d", "gamma", "beta"),
        log_linear=True,
        positive=("A_start", "A_max"),
        search={"A_start": (0.002, 0.1), "A_max": (3.0, 1e6)},
        bounds={"A_start": (1e-6, 0.9), "A_max": (1.0, 1e18)},
        hold=("A_max", "A_start", "gamma", "beta"),
        at_compute=at_compute,
        choices={
            "expert_activation": (0.008, 0.016, 0.031, 0.0625, 0.125, 0.25, 0.5, 1.0),
            "granularity_ling": (2.0, 4.0, 6.0, 8.0, 10.0, 12.0, 14.0, 16.0),
        },
    ),
)


def _rule(kind: str, title: str, per_token: tuple[float, float], data: tuple[float, float]) -> Rule:
    m, m_power, d, d_power = *per_token, *data
    return Rule(
        id=f"tian2025-{kind}",
        title=title,
        citation="Tian et al. 2025, arXiv 2507.17702",
        mark="read",
        needs=("train_flops",),
        form=f"lr = 1.1576 C^-0.1529, batch tokens = 0.0694 C^0.3644, M = {m} C^{m_power}, D = {d} C^{d_power}",
        meaning="C = M D with M the non-embedding FLOPs per token, forward and backward",
        ranges={"train_flops": (3e18, 3e20)},
        learning_rate=lambda v: 1.1576 * v["train_flops"] ** -0.1529,
        batch_tokens=lambda v: 0.0694 * v["train_flops"] ** 0.3644,
        flops_per_token=lambda v: m * v["train_flops"] ** m_power,
        tokens=lambda v: d * v["train_flops"] ** d_power,
    )


RULES = (
    _rule("dense", "Ling rules, dense", (0.0655, 0.5422), (15.2582, 0.4578)),
    _rule("moe", "Ling rules, MoE", (0.1915, 0.5095), (5.2232, 0.4905)),
)
