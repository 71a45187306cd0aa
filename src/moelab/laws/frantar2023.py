"""Scaling laws for sparsely-connected models (Frantar et al. 2023, arXiv 2309.08520): weight sparsity, not MoE.

L = (a_S (1 - S)^b_S + c_S) / N^b_N + (a_D / D)^b_D + E_0, with N the non-zero parameters.
"""

from typing import Any

import numpy as np

from moelab.laws.design import Design, Refusal
from moelab.laws.forms import Array
from moelab.laws.law import Law, Values


def formula(c: Values, v: Values) -> tuple[Array, Any]:
    """The sum of a size term that sparsity multiplies, a data term and a constant."""
    log_n, log_s, log_d = np.log(v["params_nonzero"]), np.log(1 - v["weight_sparsity"]), np.log(v["tokens"])
    n, s = np.exp(-c["b_N"] * log_n), np.exp(c["b_S"] * log_s)
    log_ratio = np.log(c["a_D"]) - log_d
    d = np.exp(c["b_D"] * log_ratio)
    width = c["a_S"] * s + c["c_S"]

    def gradient() -> dict[str, Array]:
        return {
            "a_S": s * n,
            "b_S": c["a_S"] * s * log_s * n,
            "c_S": n,
            "b_N": -width * n * log_n,
            "a_D": c["b_D"] * d / c["a_D"],
            "b_D": d * log_ratio,
            "E_0": np.ones_like(n * d),
        }

    return width * n + d + c["E_0"], gradient


def convert(design: Design) -> tuple[dict[str, Array], list[Refusal]]:
    """A dense model is the case S = 0; N without embeddings (our reading)."""
    params = design.params_without_router
    return {"params_nonzero": params, "weight_sparsity": np.zeros_like(params), "tokens": design.tokens}, []


def at_compute(params: Array, flops: float, settings: Values) -> dict[str, Array]:
    """C = 6 N D over the non-zero parameters."""
    return {
        "params_nonzero": params,
        "params_active": params,
        "params_total": params / (1 - settings["weight_sparsity"]),
        "weight_sparsity": settings["weight_sparsity"] + 0 * params,
        "tokens": flops / (6 * params),
    }


LAWS = (
    Law(
        id="frantar2023",
        title="Weight sparsity (not MoE)",
        citation="Frantar et al. 2023, arXiv 2309.08520",
        form="L = (a_S (1-S)^b_S + c_S)/N^b_N + (a_D/D)^b_D + E_0",
        variables=("params_nonzero", "weight_sparsity", "tokens"),
        coefficients=("a_S", "b_S", "c_S", "b_N", "a_D", "b_D", "E_0"),
        formula=formula,
        convert=convert,
        published={
            "a_S": 16.8, "b_S": 0.722, "c_S": 45.0, "b_N": 0.245, "a_D": 6.90e8, "b_D": 0.203, "E_0": 0.651
        },
        mark="second-hand",
        note="T5 on C4",
        meaning={
            "params_nonzero": "non-zero parameters",
            "weight_sparsity": "share of the weights that are zero",
            "tokens": "tokens processed, each once",
        },
        flops="C = 6 N D over non-zero parameters for the optimum here (the paper's convention was not read)",
        ranges={"params_nonzero": None, "weight_sparsity": None, "tokens": None},
        covers_moe=False,
        linear=("a_S", "c_S", "E_0"),
        positive=("a_S", "c_S", "a_D", "E_0"),
        search={"b_S": (0.1, 2.0), "b_N": (0.05, 0.8), "a_D": (1e6, 1e11), "b_D": (0.05, 0.8)},
        bounds={"b_S": (0.0, 10.0), "b_N": (0.0, 3.0), "b_D": (0.0, 3.0)},
        hold=("b_S", "b_D", "b_N"),
        aliases={"c": "E_0"},
        at_compute=at_compute,
        choices={"weight_sparsity": (0.0,)},
    ),
)  # fmt: skip
