"""Ready choices of how a MoE layer scores and balances its experts, by name: `moe: {routing: loss_free, ...}`."""

from typing import Any, Literal

from moelab.errors import InputError

RoutingChoice = Literal["softmax", "loss_free"]
"""`softmax`: softmax scores and a balance loss, moelab's defaults. `loss_free`: sigmoid scores and a bias per expert
that follows the load (arXiv 2408.15664), as in DeepSeek-V3."""

ROUTING_CHOICES: dict[str, dict[str, Any]] = {
    "softmax": {},
    "loss_free": {"score": "sigmoid", "bias_update": 0.001, "balance_loss": 0.0001, "z_loss": 0.0},
}
"""The fields of a MoE layer that each name stands for. `loss_free` has DeepSeek-V3's values (arXiv 2412.19437, section
4.2): steps of the bias of 0.001, a balance loss of 0.0001 (there over each sequence: `train.balance_over: sequence`)
and no z loss."""


def routing_fields(name: str) -> dict[str, Any]:
    """The fields of a `MoEConfig` that a ready choice of routing stands for. Raises InputError for an unknown name."""
    if not isinstance(name, str) or name not in ROUTING_CHOICES:
        raise InputError(f"routing: must be one of {', '.join(ROUTING_CHOICES)}, got {name!r}")
    return dict(ROUTING_CHOICES[name])
