"""Joint MoE scaling law (Ludziejewski et al. 2025, arXiv 2502.05172): active parameters, tokens and experts together.

L = a Ê^delta N_a^(alpha + gamma ln Ê) + b Ê^omega D^(beta + zeta ln Ê) + E_0, with Clark's saturated Ê. Its runs are
top-1 in every layer; a model of narrow or shared experts or dense layers enters with E = its width over that in use.
"""

from typing import Any

import numpy as np

from moelab.laws.design import Design, Refusal
from moelab.laws.forms import Array, saturate
from moelab.laws.law import Law, Values
from moelab.laws.rules import Rule

VOCABULARY = 50257


def formula(c: Values, v: Values) -> tuple[Array, Any]:
    """Two powers whose exponents drift with ln Ê."""
    log_n, log_d = np.log(v["params_active"]), np.log(v["tokens"])
    ehat, by_start, by_max = saturate(v["expert_ratio"] - 1, c["E_start"], c["E_max"])
    e = np.log(ehat)
    n = np.exp(c["delta"] * e + (c["alpha"] + c["gamma"] * e) * log_n)
    d = np.exp(c["omega"] * e + (c["beta"] + c["zeta"] * e) * log_d)

    def gradient() -> dict[str, Array]:
        by_n, by_d = c["a"] * n, c["b"] * d
        by_e = (by_n * (c["delta"] + c["gamma"] * log_n) + by_d * (c["omega"] + c["zeta"] * log_d)) / ehat
        return {
            "a": n,
            "alpha": by_n * log_n,
            "delta": by_n * e,
            "gamma": by_n * e * log_n,
            "b": d,
            "beta": by_d * log_d,
            "omega": by_d * e,
            "zeta": by_d * e * log_d,
            "E_start": by_e * by_start,
            "E_max": by_e * by_max,
            "E_0": np.ones_like(n),
        }

    return c["a"] * n + c["b"] * d + c["E_0"], gradient


def convert(design: Design) -> tuple[dict[str, Array], list[Refusal]]:
    """N_a with embeddings, E as the feed-forward width of all layers over the width in use, C = 6 N_a D."""
    return {
        "params_active": design.params_active,
        "tokens": design.tokens,
        "expert_ratio": design.width_ratio,
        "params_total": design.params_total,
    }, []


def width_of(params_active: Array) -> Array:
    """d_model of the paper's models (d = 64 n, N_a = 2 d V + 13 n d^2), by Newton's method."""
    d = np.cbrt(np.asarray(params_active, float) * 64 / 13)
    for _ in range(40):
        d = d - (13 * d**3 / 64 + 2 * d * VOCABULARY - params_active) / (39 * d**2 / 64 + 2 * VOCABULARY)
    return d


def total_of(params_active: Array, n_experts: Array) -> Array:
    """N = 2 d V + (4 + 9 E) n d^2 of the paper's model with this active size."""
    d = width_of(params_active)
    return 2 * d * VOCABULARY + (4 + 9 * n_experts) * d**3 / 64


def memory_of(params_active: Array, n_experts: Array) -> Array:
    """Bytes for inference: 2 (N + 2 x 16384 n d), weights and one KV cache of 16,384 tokens in 16 bits."""
    d = width_of(params_active)
    return 2 * (total_of(params_active, n_experts) + 2 * 16384 * d**2 / 64)


def at_compute(params: Array, flops: float, settings: Values) -> dict[str, Array]:
    """C = 6 N_a D, or C = 6 N_a D + 2 N_a D_served where `tokens_served` is set; `params` is N_a."""
    experts = settings["n_experts"] + 0 * params
    return {
        "params_active": params,
        "params_total": total_of(params, experts),
        "tokens": (flops - 2 * params * settings.get("tokens_served", 0.0)) / (6 * params),
        "expert_ratio": experts,
        "n_experts": experts,
        "memory_bytes": memory_of(params, experts),
    }


LAWS = (
    Law(
        id="ludziejewski2025",
        title="Joint MoE scaling law",
        citation="Ludziejewski et al. 2025, arXiv 2502.05172",
        form="L = a Ê^delta N_a^(alpha + gamma ln Ê) + b Ê^omega D^(beta + zeta ln Ê) + E_0",
        variables=("params_active", "tokens", "expert_ratio"),
        coefficients=(
            "a", "alpha", "delta", "gamma", "b", "beta", "omega", "zeta", "E_start", "E_max", "E_0"
        ),
        formula=formula,
        convert=convert,
        published={
            "a": 35.91, "alpha": -0.1889, "delta": -0.2285, "gamma": 0.0098, "b": 35.98, "beta": -0.1775,
            "omega": 0.5529, "zeta": -0.0259, "E_start": 2.0732, "E_max": 290.4521, "E_0": 1.3637,
        },
        mark="read",
        meaning={
            "params_active": "parameters one token uses, embeddings included: 2 d V + 13 n d^2",
            "tokens": "tokens processed, each once",
            "expert_ratio": "E of full-size top-1 experts; elsewhere all layers' width over that in use (our reading)",
        },
        flops="C = 6 N_a D, embeddings in N_a",
        ranges={
            "params_active": (79e6, 2.7e9), "tokens": (0.5e9, 80e9), "expert_ratio": (1.0, 32.0)
        },
        linear=("a", "b", "E_0"),
        positive=("a", "b", "E_0", "E_start", "E_max"),
        search={
            "alpha": (-0.5, -0.05), "delta": (-0.5, 0.1), "gamma": (-0.02, 0.02), "beta": (-0.5, -0.05),
            "omega": (-0.2, 0.8), "zeta": (-0.05, 0.02), "E_start": (1.1, 4.0), "E_max": (60.0, 600.0),
        },
        bounds={
            "alpha": (-2.0, 0.0), "delta": (-3.0, 3.0), "gamma": (-0.3, 0.3), "beta": (-2.0, 0.0),
            "omega": (-3.0, 3.0), "zeta": (-0.3, 0.3), "E_start": (1.0, 30.0), "E_max": (32.0, 1e5),
        },
        hold=("E_start", "E_max", "zeta", "gamma", "omega", "delta", "beta", "alpha"),
        aliases={"c": "E_0"},
        at_compute=at_compute,
        settings=("tokens_served",),
        choices={"n_experts": (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)},
    ),
)  # fmt: skip

RULES = (
    Rule(
        id="ludziejewski2025-lr",
        title="Joint law's learning rate",
        citation="Ludziejewski et al. 2025, arXiv 2502.05172",
        mark="read",
        needs=("params_active_non_embedding", "expert_ratio"),
        form="lr = exp(8.39 - 0.81 ln N_a - 0.25 ln E)",
        meaning="N_a the active parameters without embeddings, E the experts of top-1 routing",
        ranges={"params_active_non_embedding": None, "expert_ratio": (1.0, 32.0)},
        learning_rate=lambda v: np.exp(
            8.39 - 0.81 * np.log(v["params_active_non_embedding"]) - 0.25 * np.log(v["expert_ratio"])
        ),
    ),
)
