"""Data-constrained scaling (Muennighoff et al. 2023, arXiv 2305.16264): what repeated tokens are worth.

L = E_0 + A / N'^alpha + B / D'^alpha, where epochs beyond the first and parameters beyond what the unique tokens call
for count less and less. The published R_D and R_N are a local optimum of a flat objective: on the same 182 runs many
starts find R_D about 95, R_N about 1.7 with a slightly smaller sum, so read them with their interval.
"""

from typing import Any

import numpy as np

from moelab.laws.design import Design, Refusal
from moelab.laws.forms import Array, minimum
from moelab.laws.law import Law, Values


def worth(unique: Any, times: Any, star: Any) -> tuple[Array, Array, Array]:
    """unique (1 + star (1 - exp(-R / star))), R = times - 1; with its derivatives by `star` and by `unique` when
    unique x times is held."""
    repeats = times - 1
    left = np.exp(-repeats / star)
    value = unique * (1 + star * (1 - left))
    by_star = unique * (1 - left - left * repeats / star)
    return value, by_star, value / unique - left * times


def formula(c: Values, v: Values) -> tuple[Array, Any]:
    """E_0 + A / N'^alpha + B / D'^alpha."""
    params, tokens = v["params_total"], v["tokens"]
    unique = minimum(v["unique_tokens"], tokens)
    wanted = (c["A"] / c["B"]) ** (1 / c["alpha"]) * unique
    needed = minimum(wanted, params)
    d_worth, d_by_star, _ = worth(unique, tokens / unique, c["R_D"])
    n_worth, n_by_star, n_by_needed = worth(needed, params / needed, c["R_N"])
    n_term, d_term = c["A"] * n_worth ** -c["alpha"], c["B"] * d_worth ** -c["alpha"]

    def gradient() -> dict[str, Array]:
        n_slope, d_slope = -c["alpha"] * n_term / n_worth, -c["alpha"] * d_term / d_worth
        through = n_slope * n_by_needed * np.where(np.real(wanted) < np.real(params), wanted, 0.0) / c["alpha"]
        return {
            "E_0": np.ones_like(n_term),
            "A": (n_term + through) / c["A"],
            "B": (d_term - through) / c["B"],
            "alpha": -n_term * np.log(n_worth)
            - d_term * np.log(d_worth)
            - through * np.log(c["A"] / c["B"]) / c["alpha"],
            "R_D": d_slope * d_by_star,
            "R_N": n_slope * n_by_star,
        }

    return c["E_0"] + n_term + d_term, gradient


def convert(design: Design) -> tuple[dict[str, Array], list[Refusal]]:
    """N with embeddings; unique tokens at most the tokens processed."""
    return {
        "params_total": design.params_total,
        "tokens": design.tokens,
        "unique_tokens": design.unique_tokens,
    }, []


def at_compute(params: Array, flops: float, settings: Values) -> dict[str, Array]:
    """C = 6 N D, with at most `unique_tokens` of D unique (all, unless set)."""
    tokens = flops / (6 * params)
    return {
        "params_total": params,
        "params_active": params,
        "tokens": tokens,
        "unique_tokens": np.minimum(tokens, settings.get("unique_tokens", np.inf)),
    }


LAWS = (
    Law(
        id="muennighoff2023",
        title="Data-constrained scaling",
        citation="Muennighoff et al. 2023, arXiv 2305.16264",
        form="L = E_0 + A/N'^alpha + B/D'^alpha; D' = U + U R_D (1 - exp(-(D/U - 1)/R_D)), N' likewise",
        variables=("params_total", "tokens", "unique_tokens"),
        coefficients=("E_0", "A", "B", "alpha", "R_D", "R_N"),
        formula=formula,
        convert=convert,
        published={
            "E_0": float(np.exp(0.6254804)), "A": float(np.exp(6.255414)), "B": float(np.exp(7.3049974)),
            "alpha": 0.3526596, "R_D": 15.387756, "R_N": 5.309743,
        },
        mark="read",
        note="a local optimum of a flat objective; composing D' with a MoE law is our assumption",
        meaning={
            "params_total": "all parameters, embeddings included",
            "tokens": "tokens processed, repeats counted",
            "unique_tokens": "distinct tokens seen",
        },
        flops="C = 6 N D",
        ranges={"params_total": (7e6, 8.7e9), "tokens": (0.1e9, 900e9), "unique_tokens": None},
        covers_moe=False,
        linear=("E_0",),
        positive=("E_0", "A", "B", "R_D", "R_N"),
        search={
            "A": (50.0, 5000.0), "B": (50.0, 20000.0), "alpha": (0.2, 0.6), "R_D": (1.0, 300.0), "R_N": (0.3, 100.0)
        },
        bounds={"alpha": (0.01, 3.0), "R_D": (0.01, 1e5), "R_N": (0.01, 1e5)},
        hold=("R_N", "R_D", "alpha"),
        aliases={"E": "E_0", "R_D*": "R_D", "R_N*": "R_N"},
        at_compute=at_compute,
        settings=("unique_tokens",),
    ),
)  # fmt: skip
