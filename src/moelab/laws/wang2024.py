"""Scaling laws across model architectures (Wang et al. 2024, arXiv 2410.05661): experts as a power of their number."""

from typing import Any

import numpy as np

from moelab.laws.design import Design, Refusal
from moelab.laws.forms import Array
from moelab.laws.law import Law, Values


def formula(c: Values, v: Values) -> tuple[Array, Any]:
    """A / (N^alpha E^gamma) + B / D^beta + E_0."""
    log_n, log_e, log_d = np.log(v["params_active"]), np.log(v["n_experts"]), np.log(v["tokens"])
    n, d = np.exp(-c["alpha"] * log_n - c["gamma"] * log_e), np.exp(-c["beta"] * log_d)

    def gradient() -> dict[str, Array]:
        return {
            "A": n,
            "alpha": -c["A"] * n * log_n,
            "gamma": -c["A"] * n * log_e,
            "B": d,
            "beta": -c["B"] * d * log_d,
            "E_0": np.ones_like(n),
        }

    return c["A"] * n + c["B"] * d + c["E_0"], gradient


def convert(design: Design) -> tuple[dict[str, Array], list[Refusal]]:
    """N in use, embeddings included; E the routed experts of a layer."""
    return {"params_active": design.params_active, "n_experts": design.n_experts, "tokens": design.tokens}, []


LAWS = (
    Law(
        id="wang2024",
        title="Dense and MoE in one law",
        citation="Wang et al. 2024, arXiv 2410.05661",
        form="L = A/(N^alpha E^gamma) + B/D^beta + E_0",
        variables=("params_active", "n_experts", "tokens"),
        coefficients=("A", "alpha", "gamma", "B", "beta", "E_0"),
        formula=formula,
        convert=convert,
        unpublished="only the form and two exponents of N* were read: N* ~ C^0.590 for MoE, C^0.507 for dense",
        meaning={
            "params_active": "parameters one token uses, embeddings included (our reading of N)",
            "n_experts": "routed experts of a layer",
            "tokens": "tokens processed, each once",
        },
        flops="unknown",
        ranges={"params_active": None, "n_experts": None, "tokens": None},
        linear=("A", "B", "E_0"),
        positive=("A", "B", "E_0"),
        search={"alpha": (0.05, 1.0), "gamma": (0.01, 0.5), "beta": (0.05, 1.0)},
        bounds={"alpha": (0.0, 3.0), "gamma": (-1.0, 3.0), "beta": (0.0, 3.0)},
        aliases={"sigma": "E_0"},
    ),
)
