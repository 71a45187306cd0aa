"""One law under many: Hoffmann's form in an effective size and effective tokens (moelab's own, 2026).

L = E_0 + A / N_eff^alpha + B / D_eff^beta. Experts, granularity, shared experts and repeated data change N_eff and
D_eff only. The laws of Clark (arXiv 2202.01169), Ludziejewski (2502.05172), Krajewski at one expansion (2402.07871),
Hoffmann (2203.15556) and Muennighoff (2305.16264) are its limits. With s = ln(Ê / E_start), Clark's saturation:
ln N_eff = ln N_a + s (kappa_0 + kappa_1 ln(N_a / 1e8)) and ln D_eff = ln D' - s (mu_0 + mu_1 ln(D' / 1e10)).
D' is Muennighoff's value of repeated tokens; its R_D falls with experts as R_D exp(-rho s). Where N_eff exceeds the
size that the unique tokens support, the excess counts by his R_N. Granularity and the shared share S multiply the size
term by (1 + g / G^gamma) / (1 + g) and exp(sigma_1 S + sigma_2 S^2).
"""

from dataclasses import replace
from typing import Any

import numpy as np

from moelab.laws.design import Design, Refusal
from moelab.laws.forms import Array, minimum, saturate
from moelab.laws.law import Law, Values

N_REFERENCE, D_REFERENCE = 1e8, 1e10
"""Sizes at which kappa_0 and mu_0 hold."""
EXPERTS = ("kappa_0", "kappa_1", "mu_0", "mu_1", "E_start", "E_max", "g", "gamma")
"""What experts and their granularity are worth: coefficients that change no dense model's loss."""


def formula(c: Values, v: Values) -> tuple[Array, Any]:
    """E_0 + ((A / N_eff^alpha)^(1/k) + (B / D_eff^beta)^(1/k))^k; k is 1 unless the law has an outer exponent."""
    k, inverse = c.get("k", 1.0), 1 / c["alpha"]
    s, s_by = _experts(c, v)
    size, size_by_s = _size(c, v, s)
    unique = minimum(v["unique_tokens"], v["tokens"])
    data, data_by = _data(c, v, s, unique)
    log_u = np.log(unique)
    drag_u = c["mu_0"] + c["mu_1"] * (log_u - np.log(D_REFERENCE))
    data_u = log_u - s * drag_u
    balance = np.log(c["A"] / c["B"]) + c["beta"] * data_u
    wanted = inverse * (k * np.log(c["alpha"] / c["beta"]) + balance)
    n, by_size, by_r_n = _excess(size, wanted, c["R_N"])
    fine = c["g"] * np.exp(-c["gamma"] * np.log(v["granularity"]))
    share = v["shared_share"]
    shape = np.log((1 + fine) / (1 + c["g"])) + c["sigma_1"] * share + c["sigma_2"] * share**2
    log_n, log_d = np.log(c["A"]) - c["alpha"] * n + shape, np.log(c["B"]) - c["beta"] * data
    reducible, shares = _together(log_n, log_d, c.get("k"))

    def gradient() -> dict[str, Array]:
        by_n, by_d, mixed = shares()
        slope, by_wanted = -c["alpha"] * by_n, -c["alpha"] * by_n * (1 - by_size)
        by_data = -c["beta"] * by_d
        through_u = by_wanted * c["beta"] * inverse
        log_10 = np.log(D_REFERENCE)
        by_s = slope * by_size * size_by_s + by_data * data_by["s"] - through_u * drag_u
        found = {
            "E_0": 1 + 0 * reducible,
            "A": (by_n + by_wanted * inverse) / c["A"],
            "alpha": -by_n * n + by_wanted * inverse * (k * inverse - wanted),
            "B": (by_d - by_wanted * inverse) / c["B"],
            "beta": -by_d * data + by_wanted * inverse * (data_u - k / c["beta"]),
            "kappa_0": slope * by_size * s,
            "kappa_1": slope * by_size * s * (np.log(v["params_active"]) - np.log(N_REFERENCE)),
            "mu_0": by_data * data_by["mu_0"] - through_u * s,
            "mu_1": by_data * data_by["mu_1"] - through_u * s * (log_u - log_10),
            "E_start": by_s * s_by["E_start"],
            "E_max": by_s * s_by["E_max"],
            "g": by_n * (fine / c["g"] / (1 + fine) - 1 / (1 + c["g"])),
            "gamma": -by_n * fine * np.log(v["granularity"]) / (1 + fine),
            "sigma_1": by_n * share,
            "sigma_2": by_n * share**2,
            "R_D": by_data * data_by["R_D"],
            "R_N": slope * by_r_n,
            "rho": by_data * data_by["rho"],
        }
        if "k" in c:
            found["k"] = mixed + by_wanted * inverse * np.log(c["alpha"] / c["beta"])
        return found

    return c["E_0"] + reducible, gradient


def _together(log_n: Array, log_d: Array, k: Any) -> tuple[Array, Any]:
    """The size and data terms under the outer exponent (None: 1), and a function of its derivatives by the logarithm
    of each term and by k."""
    if k is None:
        n, d = np.exp(log_n), np.exp(log_d)
        return n + d, lambda: (n, d, 0.0)
    top = np.where(np.real(log_n) > np.real(log_d), log_n, log_d)
    p, q = np.exp((log_n - top) / k), np.exp((log_d - top) / k)
    reducible = np.exp(top + k * np.log(p + q))

    def shares() -> tuple[Array, Array, Array]:
        by_n, by_d = reducible * p / (p + q), reducible * q / (p + q)
        return by_n, by_d, reducible * np.log(p + q) - (by_n * (log_n - top) + by_d * (log_d - top)) / k

    return reducible, shares


def _experts(c: Values, v: Values) -> tuple[Array, dict[str, Array]]:
    """s = ln(Ê / E_start), 0 for a dense model, with its derivatives."""
    ehat, by_start, by_max = saturate(v["expert_ratio"] - 1, c["E_start"], c["E_max"])
    return np.log(ehat / c["E_start"]), {"E_start": by_start / ehat - 1 / c["E_start"], "E_max": by_max / ehat}


def _size(c: Values, v: Values, s: Array) -> tuple[Array, Array]:
    """ln N_eff before repeated data, granularity and shared experts; with its derivative by s."""
    log_n = np.log(v["params_active"])
    worth = c["kappa_0"] + c["kappa_1"] * (log_n - np.log(N_REFERENCE))
    return log_n + s * worth, worth


def _data(c: Values, v: Values, s: Array, unique: Array) -> tuple[Array, dict[str, Array]]:
    """ln D_eff with its derivatives; those by s hold N's part still."""
    half_life = c["R_D"] * np.exp(-c["rho"] * s)
    worth, by_half_life = _decayed(v["tokens"] / unique - 1, half_life)
    log_d = np.log(unique) + np.log(worth)
    drag = c["mu_0"] + c["mu_1"] * (log_d - np.log(D_REFERENCE))
    through = (1 - s * c["mu_1"]) * by_half_life / worth * half_life
    return log_d - s * drag, {
        "mu_0": -s,
        "mu_1": -s * (log_d - np.log(D_REFERENCE)),
        "R_D": through / c["R_D"],
        "rho": -through * s,
        "s": -drag - through * c["rho"],
    }


def _excess(size: Array, wanted: Array, star: Any) -> tuple[Array, Array, Array]:
    """ln N' of a size whose unique tokens support `wanted` (both logarithms); derivatives by size and by R_N."""
    over = np.real(size) > np.real(wanted)
    gap = np.where(over, size - wanted, 0.0)
    with np.errstate(over="ignore"):
        repeats = np.expm1(
            np.minimum(gap.real, 300.0) + 1j * gap.imag if np.iscomplexobj(gap) else np.minimum(gap, 300)
        )
    worth, by_star = _decayed(repeats, star)
    by_size = np.exp(gap - repeats / star) / worth
    return np.where(over, wanted + np.log(worth), size), np.where(over, by_size, 1.0), by_star / worth


def _decayed(repeats: Array, star: Any) -> tuple[Array, Array]:
    """1 + star (1 - exp(-repeats / star)), what `repeats` beyond the first are worth; with its derivative by `star`."""
    if not np.any(repeats):
        return np.ones_like(repeats), np.zeros_like(repeats)
    lost = -np.expm1(-repeats / star)
    return 1 + star * lost, lost - (1 - lost) * repeats / star


def convert(design: Design) -> tuple[dict[str, Array], list[Refusal]]:
    """N_a with embeddings, E as a MoE layer's width over the width in use, S as shared over active width."""
    shared = design.n_shared
    return {
        "params_active": design.params_active,
        "tokens": design.tokens,
        "unique_tokens": design.unique_tokens,
        "expert_ratio": design.expert_ratio,
        "granularity": design.granularity,
        "shared_share": shared / (design.top_k + shared),
    }, []


def at_compute(params: Array, flops: float, settings: Values) -> dict[str, Array]:
    """C = 6 N_a D, with at most `unique_tokens` of D unique (all, unless set).

    The experts in use are `granularity` in number, `shared_share` of them shared. `n_experts` are the routed ones; set,
    they give `expert_ratio` (NaN where fewer than in use).
    """
    tokens, same = flops / (6 * params), 0 * params
    fine, share = settings.get("granularity", 1.0) + same, settings.get("shared_share", 0.0) + same
    if "expert_ratio" in settings or "n_experts" not in settings:
        ratio = settings.get("expert_ratio", 1.0) + same
    else:
        ratio = np.round(settings["n_experts"] / fine + share, 12)
        ratio = np.where(ratio < 1, np.nan, ratio)
    fine, share = (np.where(ratio == 1, dense, value) for dense, value in ((1.0, fine), (0.0, share)))
    return {
        "params_active": params,
        "tokens": tokens,
        "unique_tokens": np.minimum(tokens, settings.get("unique_tokens", np.inf)),
        "expert_ratio": ratio,
        "n_experts": fine * (ratio - share),
        "granularity": fine,
        "shared_share": share,
    }


_LAW = Law(
    id="moelab2026",
    title="One law under many",
    citation="moelab 2026",
    form="L = E_0 + A/N_eff^alpha + B/D_eff^beta; N_eff, D_eff from experts, granularity, shared share and repeats",
    variables=("params_active", "tokens", "expert_ratio", "granularity", "shared_share", "unique_tokens"),
    coefficients=(
        "E_0", "A", "alpha", "B", "beta", "kappa_0", "kappa_1", "mu_0", "mu_1", "E_start", "E_max", "g", "gamma",
        "sigma_1", "sigma_2", "R_D", "R_N", "rho",
    ),
    formula=formula,
    convert=convert,
    unpublished="floor and scale differ between texts and tokenizers; a fit takes the rest from its prior",
    note="a fit uses the shipped prior, made from public runs and published laws; --prior takes another or none",
    meaning={
        "params_active": "parameters one token uses, embeddings included",
        "tokens": "tokens processed, repeats counted",
        "unique_tokens": "distinct tokens seen; all of them where a table has no such column",
        "expert_ratio": "E of full-size top-1 experts; elsewhere a layer's width over that in use; 1 where dense",
        "granularity": "G = width of the FFN that a MoE layer replaces over the width of one expert; 1 where dense",
        "shared_share": "S = width of the shared experts over the active width; 0 without any",
    },
    optional={"expert_ratio": 1.0, "granularity": 1.0, "shared_share": 0.0, "unique_tokens": "tokens"},
    flops="C = 6 N_a D for the optimum here",
    ranges=dict.fromkeys(
        ("params_active", "tokens", "expert_ratio", "granularity", "shared_share", "unique_tokens"), None
    ),
    linear=("E_0", "A", "B"),
    positive=("E_0", "A", "alpha", "B", "beta", "E_start", "E_max", "g", "gamma", "R_D", "R_N"),
    search={
        "alpha": (0.05, 0.6), "beta": (0.05, 0.6), "kappa_0": (0.0, 1.0), "kappa_1": (-0.1, 0.1),
        "mu_0": (-0.5, 1.0), "mu_1": (-0.1, 0.1), "E_start": (1.05, 4.0), "E_max": (60.0, 1000.0),
        "g": (0.02, 1.0), "gamma": (0.2, 1.5), "sigma_1": (-1.0, 1.0), "sigma_2": (-1.0, 1.0),
        "R_D": (3.0, 60.0), "R_N": (1.0, 20.0), "rho": (-0.5, 0.5),
    },
    bounds={
        "alpha": (0.01, 3.0), "beta": (0.01, 3.0), "kappa_0": (-5.0, 5.0), "kappa_1": (-2.0, 2.0),
        "mu_0": (-10.0, 10.0), "mu_1": (-2.0, 2.0), "E_start": (1.0, 50.0), "E_max": (51.0, 1e6),
        "g": (1e-6, 100.0), "gamma": (0.01, 5.0), "sigma_1": (-5.0, 5.0), "sigma_2": (-10.0, 10.0),
        "R_D": (0.01, 1e5), "R_N": (0.01, 1e16), "rho": (-3.0, 3.0),
    },
    aliases={"E": "E_0", "R_D*": "R_D", "R_N*": "R_N"},
    at_compute=at_compute,
    settings=("unique_tokens", "shared_share", "n_experts"),
    choices={"expert_ratio": tuple(2.0**k for k in range(7)), "granularity": (1.0, 2.0, 4.0, 8.0)},
)  # fmt: skip

LAWS = (
    _LAW,
    replace(
        _LAW,
        id="moelab2026-outer",
        title="One law under many, with an outer exponent",
        citation="moelab 2026; the exponent of arXiv 2608.07222",
        form="L = E_0 + ((A/N_eff^alpha)^(1/k) + (B/D_eff^beta)^(1/k))^k",
        coefficients=(*_LAW.coefficients, "k"),
        note="arXiv 2608.07222 writes (A'/N^alpha' + B'/D^beta')^k: A = A'^k, alpha = k alpha', likewise B and beta",
        positive=(*_LAW.positive, "k"),
        search={**_LAW.search, "k": (0.3, 1.0)},
        bounds={**_LAW.bounds, "k": (0.1, 2.0)},
        variant_of="moelab2026",
    ),
)
