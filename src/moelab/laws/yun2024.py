"""Inference-optimal MoE (Yun et al. 2024, arXiv 2404.02852): Clark's interaction on top of a law in N, E and D.

log L = log(A / N^alpha + B / Ê^beta + C / D^gamma + E_0) + d log N log Ê. The coefficients were never published.
"""

from typing import Any

import numpy as np

from moelab.laws.design import Design, Refusal
from moelab.laws.forms import Array, saturate
from moelab.laws.law import Law, Values


def formula(c: Values, v: Values) -> tuple[Array, Any]:
    """(A / N^alpha + B / Ê^beta + C / D^gamma + E_0) N^(d ln Ê)."""
    log_n, log_d = np.log(v["params_dense"]), np.log(v["tokens"])
    ehat, by_start, by_max = saturate(v["n_experts"] - 1, c["E_start"], c["E_max"])
    log_e = np.log(ehat)
    n, d = np.exp(-c["alpha"] * log_n), np.exp(-c["gamma"] * log_d)
    e, twist = np.exp(-c["beta"] * log_e), np.exp(c["d"] * log_n * log_e)
    inner = c["A"] * n + c["B"] * e + c["C"] * d + c["E_0"]

    def gradient() -> dict[str, Array]:
        by_e = twist * (c["d"] * log_n * inner - c["beta"] * c["B"] * e) / ehat
        return {
            "A": twist * n,
            "alpha": -twist * c["A"] * n * log_n,
            "B": twist * e,
            "beta": -twist * c["B"] * e * log_e,
            "C": twist * d,
            "gamma": -twist * c["C"] * d * log_d,
            "d": twist * inner * log_n * log_e,
            "E_start": by_e * by_start,
            "E_max": by_e * by_max,
            "E_0": twist,
        }

    return inner * twist, gradient


def convert(design: Design) -> tuple[dict[str, Array], list[Refusal]]:
    """N of the dense model of the same depth and width, without embeddings."""
    return {"params_dense": design.params_dense, "tokens": design.tokens, "n_experts": design.n_experts}, []


def at_compute(params: Array, flops: float, settings: Values) -> dict[str, Array]:
    """C = 6 N D with the dense N; N_MoE = (1 + (E - 1) / 3) N."""
    experts = settings["n_experts"] + 0 * params
    return {
        "params_dense": params,
        "params_total": params * (1 + (experts - 1) / 3),
        "tokens": flops / (6 * params),
        "n_experts": experts,
    }


LAWS = (
    Law(
        id="yun2024",
        title="Inference-optimal MoE",
        citation="Yun et al. 2024, arXiv 2404.02852",
        form="log L = log(A/N^alpha + B/Ê^beta + C/D^gamma + E_0) + d log N log Ê",
        variables=("params_dense", "tokens", "n_experts"),
        coefficients=("A", "alpha", "B", "beta", "C", "gamma", "d", "E_start", "E_max", "E_0"),
        formula=formula,
        convert=convert,
        unpublished="the paper prints none",
        note="Clark's runs, at one D, identify E_0 + C / D^gamma together only",
        meaning={
            "params_dense": "the dense model of the same shape (each MoE layer keeps one expert), without embeddings",
            "tokens": "tokens processed, each once",
            "n_experts": "experts of a MoE layer; top-2, every second layer",
        },
        flops="C = 6 N D with the dense N, which undercounts top-2",
        ranges={"params_dense": (0.1e9, 0.73e9), "tokens": (2.5e9, 20e9), "n_experts": (1.0, 32.0)},
        linear=("A", "B", "C", "E_0"),
        positive=("A", "B", "C", "E_0", "E_start", "E_max"),
        search={
            "alpha": (0.05, 0.8), "beta": (0.1, 1.5), "gamma": (0.05, 0.8), "d": (-0.01, 0.01),
            "E_start": (1.1, 5.0), "E_max": (60.0, 1000.0),
        },
        bounds={
            "alpha": (0.0, 3.0), "beta": (0.0, 5.0), "gamma": (0.0, 3.0), "d": (-0.2, 0.2),
            "E_start": (1.0, 30.0), "E_max": (32.0, 1e5),
        },
        aliases={"F": "E_0"},
        at_compute=at_compute,
        choices={"n_experts": (1.0, 4.0, 8.0, 16.0, 32.0)},
    ),
)  # fmt: skip
