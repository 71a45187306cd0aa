"""Chinchilla's parametric law (Hoffmann et al. 2022, arXiv 2203.15556) and Besiroglu's re-fit (arXiv 2404.10102).

L = E_0 + A / N^alpha + B / D^beta. The re-fit's lessons hold for every fit here: sum (not mean) the Huber losses, run
to convergence, do not round.
"""

from typing import Any

import numpy as np

from moelab.laws.design import Design, Refusal
from moelab.laws.forms import Array, power_law_at_compute
from moelab.laws.law import Law, Values


def formula(c: Values, v: Values) -> tuple[Array, Any]:
    """E_0 + A / N^alpha + B / D^beta."""
    log_n, log_d = np.log(v["params_total"]), np.log(v["tokens"])
    n, d = np.exp(-c["alpha"] * log_n), np.exp(-c["beta"] * log_d)

    def gradient() -> dict[str, Array]:
        return {
            "E_0": np.ones_like(n),
            "A": n,
            "alpha": -c["A"] * n * log_n,
            "B": d,
            "beta": -c["B"] * d * log_d,
        }

    return c["E_0"] + c["A"] * n + c["B"] * d, gradient


def convert(design: Design) -> tuple[dict[str, Array], list[Refusal]]:
    """N with embeddings."""
    return {"params_total": design.params_total, "tokens": design.tokens}, []


def _law(**specific: Any) -> Law:
    return Law(
        form="L = E_0 + A/N^alpha + B/D^beta",
        variables=("params_total", "tokens"),
        coefficients=("E_0", "A", "alpha", "B", "beta"),
        formula=formula,
        convert=convert,
        mark="second-hand",
        meaning={"params_total": "all parameters, embeddings included", "tokens": "tokens processed, each once"},
        flops="C = 6 N D",
        ranges={"params_total": None, "tokens": None},
        covers_moe=False,
        linear=("E_0", "A", "B"),
        positive=("E_0", "A", "B"),
        search={"alpha": (0.05, 1.0), "beta": (0.05, 1.0)},
        bounds={"alpha": (0.0, 3.0), "beta": (0.0, 3.0)},
        hold=("alpha", "beta"),
        at_compute=power_law_at_compute,
        **specific,
    )


LAWS = (
    _law(
        id="hoffmann2022",
        title="Chinchilla",
        citation="Hoffmann et al. 2022, arXiv 2203.15556",
        published={"E_0": 1.6934, "A": 406.4, "alpha": 0.3392, "B": 410.7, "beta": 0.2849},
    ),
    _law(
        id="besiroglu2024",
        title="Chinchilla, re-fitted",
        citation="Besiroglu et al. 2024, arXiv 2404.10102",
        published={"E_0": 1.8172, "A": 482.01, "alpha": 0.3478, "B": 2085.43, "beta": 0.3658},
    ),
)
