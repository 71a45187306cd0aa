"""A five-factor law (arXiv 2509.23678): data, total and active size, active experts, and the share of shared experts.

L = (e G + f/G + m S^2 + n S)(1/N^alpha + k/N_a^alpha + h N_a/N) + a/N^alpha + b/D^beta + c/N_a^alpha + E_0. Here G
counts active experts and S is the shared share of them: best at G = sqrt(f/e) = 6.8 and S = -n/(2m) = 0.31.
"""

from typing import Any

import numpy as np

from moelab.laws.design import Design, Refusal
from moelab.laws.forms import Array
from moelab.laws.law import Law, Values


def formula(c: Values, v: Values) -> tuple[Array, Any]:
    """Shape of the experts times a size factor, plus three powers."""
    log_n, log_a, log_d = np.log(v["params_total"]), np.log(v["params_active"]), np.log(v["tokens"])
    g, s, ratio = v["active_experts"], v["shared_share"], v["params_active"] / v["params_total"]
    n, a, d = np.exp(-c["alpha"] * log_n), np.exp(-c["alpha"] * log_a), np.exp(-c["beta"] * log_d)
    shape = c["e"] * g + c["f"] / g + c["m"] * s**2 + c["n"] * s
    size = n + c["k"] * a + c["h"] * ratio

    def gradient() -> dict[str, Array]:
        return {
            "e": g * size,
            "f": size / g,
            "m": s**2 * size,
            "n": s * size,
            "k": shape * a,
            "h": shape * ratio,
            "a": n,
            "alpha": -(shape + c["a"]) * n * log_n - (shape * c["k"] + c["c"]) * a * log_a,
            "b": d,
            "beta": -c["b"] * d * log_d,
            "c": a,
            "E_0": np.ones_like(n),
        }

    return shape * size + c["a"] * n + c["b"] * d + c["c"] * a + c["E_0"], gradient


def convert(design: Design) -> tuple[dict[str, Array], list[Refusal]]:
    """N and N_a with embeddings (our reading); active experts and shared share counted in routed experts' widths."""
    shared = design.n_shared
    return {
        "params_total": design.params_total,
        "params_active": design.params_active,
        "tokens": design.tokens,
        "active_experts": design.top_k + shared,
        "shared_share": shared / (design.top_k + shared),
    }, []


def at_compute(params: Array, flops: float, settings: Values) -> dict[str, Array]:
    """C = 6 N_a D at a given active share of the parameters."""
    active = params * settings["activation_rate"]
    return {
        "params_total": params,
        "params_active": active,
        "tokens": flops / (6 * active),
        "active_experts": settings["active_experts"] + 0 * params,
        "shared_share": settings["shared_share"] + 0 * params,
    }


LAWS = (
    Law(
        id="fivefactor2025",
        title="Five-factor MoE law",
        citation="arXiv 2509.23678",
        form="L = (e G + f/G + m S^2 + n S)(1/N^alpha + k/N_a^alpha + h N_a/N)"
        " + a/N^alpha + b/D^beta + c/N_a^alpha + E_0",
        variables=("params_total", "params_active", "tokens", "active_experts", "shared_share"),
        coefficients=("e", "f", "m", "n", "k", "h", "a", "alpha", "b", "beta", "c", "E_0"),
        formula=formula,
        convert=convert,
        published={
            "e": 0.1577, "f": 7.2446, "m": 5.1395, "n": -3.2363, "k": 0.0013, "h": 0.0450, "a": 38.051,
            "alpha": 0.2383, "b": 27129.05, "beta": 0.4694, "c": 31.096, "E_0": 1.8182,
        },
        mark="second-hand",
        meaning={
            "params_total": "all parameters",
            "params_active": "parameters one token uses",
            "tokens": "tokens processed, each once",
            "active_experts": "G = top_k plus shared experts, in widths of one routed expert",
            "shared_share": "S = shared experts over active experts",
        },
        flops="C = 6 N_a D for the optimum here (the paper's convention was not read)",
        ranges={
            "params_total": None, "params_active": None, "tokens": None, "active_experts": None, "shared_share": None
        },
        covers_dense=False,
        linear=("a", "b", "c", "E_0", "e", "f", "m", "n"),
        positive=("a", "b", "c", "E_0", "e", "f", "k", "h"),
        search={"k": (1e-4, 0.1), "h": (0.003, 0.5), "alpha": (0.1, 0.5), "beta": (0.1, 0.9)},
        bounds={"alpha": (0.01, 3.0), "beta": (0.01, 3.0), "k": (1e-8, 1e3), "h": (1e-8, 1e3)},
        hold=("m", "n", "e", "f", "k", "h", "beta", "alpha"),
        at_compute=at_compute,
        choices={
            "activation_rate": (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0),
            "active_experts": tuple(float(k) for k in range(1, 17)),
            "shared_share": tuple(k / 20 for k in range(20)),
        },
    ),
)  # fmt: skip
