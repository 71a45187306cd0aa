"""Small tables that look like those of a study: six runs, two laws, two final runs."""

from types import SimpleNamespace
from typing import Any

import pytest

LAWS = ("hoffmann2022", "abnar2025")
RUNS: list[dict[str, Any]] = [
    {"run": f"r{i}", "label": f"{kind} d{width} {tokens / 1e6:g}M", "kind": kind, "params_active": params,
     "params_total": params * (3 if kind == "moe" else 1), "tokens": tokens, "n_experts": 8 if kind == "moe" else 1,
     "loss": loss}
    for i, (kind, width, params, tokens, loss) in enumerate([
        ("dense", 24, 21_000, 250_000, 4.17), ("dense", 24, 21_000, 1_600_000, 3.78),
        ("dense", 64, 176_000, 250_000, 3.82), ("dense", 64, 176_000, 1_600_000, 3.43),
        ("moe", 32, 43_000, 600_000, 3.75), ("moe", 32, 43_000, 1_600_000, 3.58),
    ])
]  # fmt: skip
CURVE = [
    {**{name: run[name] for name in ("run", "label", "kind")}, "tokens": run["tokens"] * step / 10,
     "loss": run["loss"] + 2 / step - 0.2}
    for run in RUNS for step in range(1, 11)
]  # fmt: skip
POINTS = [
    {"law": law, "measured": run["loss"], "predicted": run["loss"] * (1.01 if held else 1.002),
     "low": run["loss"] - 0.04, "high": run["loss"] + 0.05, "held_out": held,
     **{name: run[name] for name in ("label", "kind")}}
    for law in LAWS for run in RUNS for held in (run["tokens"] > 1e6,)
]  # fmt: skip
CANDIDATES = [
    {"label": label, "law": law, "loss": loss, "low": loss - 0.05, "high": loss + 0.06, "kind": kind, "rank": rank}
    for rank, (label, kind, loss) in enumerate([("32 experts top-4", "moe", 3.02), ("d72", "dense", 3.13)], 1)
    for law in LAWS
]
FINAL = [
    {"label": label, "kind": kind, "law": law, "predicted": loss, "low": loss - 0.05, "high": loss + 0.05,
     "measured": loss + 0.03, "seed_noise": 0.01}
    for label, kind, loss in (("recommended", "moe", 3.03), ("best dense", "dense", 3.12)) for law in LAWS
]  # fmt: skip
HOLDOUT = [
    {"law": law, "extrapolation": factor, "error_rel": error, "covered": covered}
    for law in LAWS
    for factor, error, covered in ((1.5, 0.002, True), (4.0, -0.011, False))
]
SLICE = [
    {"x": x, "loss": 3.5 + (i - 2) ** 2 / 50, "group": "1e12 FLOPs"} for i, x in enumerate((1e4, 2e4, 4e4, 8e4, 2e5))
]
OPTIMUM = [{"x": 4e4, "low": 3e4, "high": 5.5e4, "loss": 3.5, "group": "1e12 FLOPs"}]
AGAINST = [
    {"x": x, "loss": 3.4 - x / 40, "low": 3.3 - x / 40, "high": 3.5 - x / 40, "law": law, "kind": "moe"}
    for law in LAWS
    for x in (1, 2, 4, 8)
]
FRONT = [
    {
        "loss": 3.1,
        "params_total": 1e6,
        "serving_cost": 2.0,
        "label": "big",
        "kind": "moe",
        "on_front": True,
        "recommended": True,
    },
    {
        "loss": 3.2,
        "params_total": 3e5,
        "serving_cost": None,
        "label": "small",
        "kind": "dense",
        "on_front": True,
        "recommended": False,
    },
    {
        "loss": 3.3,
        "params_total": 9e5,
        "serving_cost": 1.5,
        "label": "dominated",
        "kind": "dense",
        "on_front": False,
        "recommended": False,
    },
]
SERVING = [
    {"batch": batch, "tokens_per_second": batch / (0.01 + batch * 1e-4), "time_per_output_token": 0.01 + batch * 1e-4,
     "label": "MoE 64e top-8"}
    for batch in (1, 8, 64, 256)
]  # fmt: skip
SIZED = [{"params_total": a, "sparsity": s, "loss": 3 + s + a / 1e7} for a in (1e6, 3e6, 8e6) for s in (0, 0.5, 0.75)]
COEFFICIENTS = [
    {"law": "hoffmann2022", "name": "E_0", "value": 1.69, "low": 1.61, "high": 1.77},
    {"law": "hoffmann2022", "name": "A", "value": 406.4, "low": None, "high": None},
]


@pytest.fixture(scope="session")
def demo() -> SimpleNamespace:
    """The tables above by name."""
    return SimpleNamespace(**{name: value for name, value in globals().items() if name.isupper()})
