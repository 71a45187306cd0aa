"""What a model is: validated configs, exact parameter and FLOP counts, presets of public models. No torch."""

from moelab.architecture.attention import MLAConfig
from moelab.architecture.config import ModelConfig
from moelab.architecture.counts import FlopCount, ParameterCount, count_flops, count_parameters
from moelab.architecture.experts import MoEConfig
from moelab.architecture.li import LiSize, LiSolution, li_size, li_solve
from moelab.architecture.presets import PRESETS, load_model, load_preset
from moelab.architecture.routing_choice import ROUTING_CHOICES, routing_fields
from moelab.architecture.shape import Shape
from moelab.architecture.transition import token_choice_config

__all__ = [
    "PRESETS",
    "ROUTING_CHOICES",
    "FlopCount",
    "LiSize",
    "LiSolution",
    "MLAConfig",
    "MoEConfig",
    "ModelConfig",
    "ParameterCount",
    "Shape",
    "count_flops",
    "count_parameters",
    "li_size",
    "li_solve",
    "load_model",
    "load_preset",
    "routing_fields",
    "token_choice_config",
]
