"""What other kinds of attention would save in serving: a design priced with windows and with latent attention.

No law has the kind of attention among its variables, so a plan does not choose it; the saving stands beside the plan.
"""

from typing import Any

from moelab.architecture import ModelConfig, count_parameters
from moelab.errors import InputError
from moelab.planning.attention_axis import latent_sizes
from moelab.planning.budget import Serving
from moelab.planning.candidate import Candidate
from moelab.planning.costs import cost_of, served_with
from moelab.serving import serve_one

Row = dict[str, Any]

WINDOWED: dict[str, Any] = {"sliding_window": 128, "sliding_pattern": ["window", "full"]}
"""Windows as in gpt-oss (arXiv 2508.10925): 128 tokens in every second layer."""


def attention_rows(best: Candidate, wanted: Serving) -> list[Row]:
    """Rows of a what-if: the design on the same tokens with windows and with latent attention, where it has neither.

    `cost` is the lifetime cost at the design's own cost of training, with its interval as `cost_of` gives it; no rows
    without tokens to serve and both prices.
    """
    config, train = best.config, (best.cost or {}).get("train")
    if (
        config.mla is not None
        or config.sliding_window is not None
        or wanted.tokens is None
        or wanted.price is None
        or train is None
    ):
        return []
    latent = {
        "mla": latent_sizes(config.d_model, config.head_dim).to_dict(), "n_kv_heads": config.n_heads, "qk_norm": "none"
    }  # fmt: skip
    kinds = {
        "windows as in gpt-oss (no law sees them)": WINDOWED,
        "latent attention (no law sees it)": latent,
    }
    return [_row(change, best, config.replace(**changes), wanted, train) for change, changes in kinds.items()]


def _row(change: str, best: Candidate, other: ModelConfig, wanted: Serving, train: float) -> Row:
    try:
        served = serve_one(other, wanted.traffic, wanted.device, wanted.price)
    except InputError as error:
        return {"change": change, "why_not": str(error), "changes": True}
    params = count_parameters(other)
    cost = cost_of(train, best.training, served_with(served, wanted), wanted.tokens)
    return {
        "change": change,
        "experts": best.experts,
        "params_active": float(params.params_active),
        "params_total": float(params.params_total),
        "tokens": float(best.tokens),
        **{f"cost{end}": cost.get(f"lifetime{end}") for end in ("", "_low", "_high")},
        "changes": True,
    }
