"""The torch modules an architecture describes: attention, feed-forward, routers, experts, dispatch, generation."""

from moelab.architecture import token_choice_config
from moelab.model.cross_entropy import cross_entropy_reference, linear_cross_entropy
from moelab.model.dispatch import DISPATCHES, resolve_dispatch
from moelab.model.initialize import build_model, draw, outline_model
from moelab.model.language_model import LanguageModel, LossOutput
from moelab.model.moe import MoELayer, leak_free, leaks
from moelab.model.routing_record import RoutingRecord, churn
from moelab.model.transition import to_token_choice

__all__ = [
    "DISPATCHES",
    "LanguageModel",
    "LossOutput",
    "MoELayer",
    "RoutingRecord",
    "build_model",
    "churn",
    "cross_entropy_reference",
    "draw",
    "leak_free",
    "leaks",
    "linear_cross_entropy",
    "outline_model",
    "resolve_dispatch",
    "to_token_choice",
    "token_choice_config",
]
