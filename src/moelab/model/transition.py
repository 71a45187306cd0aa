"""Transition tuning: go on training a mixing model as token choice, with the same weights (arXiv 2310.15961)."""

import torch

from moelab.architecture import token_choice_config
from moelab.model.initialize import build_model
from moelab.model.language_model import LanguageModel


@torch.no_grad()
def to_token_choice(model: LanguageModel, dispatch: str = "auto") -> LanguageModel:
    """A token-choice model that shares no memory with `model` and has its weights; emit weights and temperatures go."""
    turned = build_model(token_choice_config(model.config), dispatch=dispatch)
    weights = model.state_dict()
    turned.load_state_dict({name: weights[name] for name in turned.state_dict()})
    return turned.to(model.head_weight.device).train(model.training)
