"""Unified scaling laws for routed language models (Clark et al. 2022, arXiv 2202.01169): dense size times experts.

log10 L = a log10 N + b log10 Ê + c log10 N log10 Ê + d, with Ê the saturated number of experts; three routers. All
runs saw 130B tokens, so the laws apply near there only. Two simpler forms of the paper, without saturation, ship
without coefficients. E_start and E_max are barely identified.
"""

from typing import Any

import numpy as np

from moelab.laws.design import Design, Refusal
from moelab.laws.forms import Array, saturate
from moelab.laws.law import Law, Values

TOKENS = 130e9
_LN10 = float(np.log(10))


def saturated(c: Values, v: Values) -> tuple[Array, Any]:
    """Bilinear in log10 N and log10 Ê."""
    log_n = np.log10(v["params_active_non_embedding"])
    ehat, by_start, by_max = saturate(v["expert_ratio"] - 1, c["E_start"], c["E_max"])
    log_e = np.log10(ehat)
    loss = 10 ** (c["a"] * log_n + c["b"] * log_e + c["c"] * log_n * log_e + c["d"])

    def gradient() -> dict[str, Array]:
        scale = loss * _LN10
        by_e = loss * (c["b"] + c["c"] * log_n) / ehat
        return {
            "a": scale * log_n,
            "b": scale * log_e,
            "c": scale * log_n * log_e,
            "d": scale,
            "E_start": by_e * by_start,
            "E_max": by_e * by_max,
        }

    return loss, gradient


def bilinear(c: Values, v: Values) -> tuple[Array, Any]:
    """Bilinear in log10 N and log10 E."""
    log_n, log_e = np.log10(v["params_active_non_embedding"]), np.log10(v["expert_ratio"])
    loss = 10 ** (c["a"] * log_n + c["b"] * log_e + c["c"] * log_n * log_e + c["d"])

    def gradient() -> dict[str, Array]:
        scale = loss * _LN10
        return {"a": scale * log_n, "b": scale * log_e, "c": scale * log_n * log_e, "d": scale}

    return loss, gradient


def separable(c: Values, v: Values) -> tuple[Array, Any]:
    """A power of N times a power of E."""
    log_n, log_e = np.log10(v["params_active_non_embedding"]), np.log10(v["expert_ratio"])
    loss = 10 ** (c["a"] * log_n + c["b"] * log_e + c["d"])

    def gradient() -> dict[str, Array]:
        return {"a": loss * _LN10 * log_n, "b": loss * _LN10 * log_e, "d": loss * _LN10}

    return loss, gradient


def convert(design: Design) -> tuple[dict[str, Array], list[Refusal]]:
    """N: non-embedding parameters that a token sees, routers out; E as a MoE layer's width over the width in use."""
    far = np.abs(np.log(design.tokens / TOKENS)) > np.log(1.25)
    return {
        "params_active_non_embedding": design.params_active_without_router,
        "expert_ratio": design.expert_ratio,
        "tokens": design.tokens,
    }, [Refusal("the coefficients hold near 130B tokens only", far, True)]


def at_compute(params: Array, flops: float, settings: Values) -> dict[str, Array]:
    """The tokens are fixed, so C = 6 N 130e9 leaves no choice of N."""
    active = flops / (6 * TOKENS) + 0 * params
    return {
        "params_active_non_embedding": active,
        "params_active": active,
        "tokens": TOKENS + 0 * params,
        "expert_ratio": settings["n_experts"] + 0 * params,
        "n_experts": settings["n_experts"] + 0 * params,
    }


def _law(**specific: Any) -> Law:
    return Law(
        **{
            "citation": "Clark et al. 2022, arXiv 2202.01169",
            "variables": ("params_active_non_embedding", "expert_ratio"),
            "convert": convert,
            "meaning": {
                "params_active_non_embedding": "parameters of the dense model that a token sees, without embeddings",
                "expert_ratio": "E of top-1 routing (every second block); elsewhere a layer's width over that in use",
                "tokens": "all runs saw as many",
            },
            "flops": "forward FLOPs per token of the dense backbone; C = 6 N x 130e9 for the optimum here",
            "log_linear": True,
            "at_compute": at_compute,
            "choices": {"n_experts": tuple(2.0**k for k in range(10))},
            **specific,
        }
    )


def _router(name: str, router: str, a: float, b: float, c: float, d: float, start: float, end: float, note: str) -> Law:
    return _law(
        id=f"clark2022-{name}",
        title=f"Routed language models, {router}",
        form="log10 L = a log10 N + b log10 Ê + c log10 N log10 Ê + d",
        coefficients=("a", "b", "c", "d", "E_start", "E_max"),
        formula=saturated,
        published={"a": a, "b": b, "c": c, "d": d, "E_start": start, "E_max": end},
        mark="second-hand",
        note=note,
        ranges={"params_active_non_embedding": (16.5e6, 1.3e9), "expert_ratio": (1.0, 512.0), "tokens": (130e9, 130e9)},
        linear=("a", "b", "c", "d"),
        positive=("E_start", "E_max"),
        search={"E_start": (1.05, 6.0), "E_max": (60.0, 3000.0)},
        bounds={"E_start": (1.0, 50.0), "E_max": (51.0, 1e6)},
        hold=("E_start", "E_max", "c", "b"),
    )


def _form(name: str, title: str, formula: Any, text: str, coefficients: tuple[str, ...]) -> Law:
    return _law(
        id=f"clark2022-{name}",
        title=title,
        form=text,
        coefficients=coefficients,
        formula=formula,
        unpublished="the paper's final laws are the saturated ones",
        ranges={"params_active_non_embedding": None, "expert_ratio": None},
        linear=coefficients,
    )


LAWS = (
    _router("sbase", "S-BASE", -0.082, -0.108, 0.009, 1.104, 1.847, 314.5,
            "recomputed on the public runs (loss_validation): mean error 0.69 %, worst 2.0 %"),
    _router("rlr", "RL-R", -0.083, -0.126, 0.012, 1.111, 1.880, 470.0,
            "recomputed on the public runs (loss_validation): mean error 1.51 %, worst 3.6 %"),
    _router("hash", "Hash layers", -0.087, -0.136, 0.012, 1.157, 4.175, 477.7,
            "recomputed on the public runs (loss_validation): mean error 0.92 %, worst 3.0 %"),
    _form("bilinear", "Routed language models, without saturation", bilinear,
          "log10 L = a log10 N + b log10 E + c log10 N log10 E + d", ("a", "b", "c", "d")),
    _form("separable", "Routed language models, separable", separable,
          "log10 L = a log10 N + b log10 E + d", ("a", "b", "d")),
)  # fmt: skip
