"""What a model that mixes or lets experts choose turns into: token choice with the same weights (arXiv 2310.15961)."""

from moelab.architecture.config import ModelConfig
from moelab.errors import InputError

_GROUP_OPTIONS = ("grouping", "group_size", "temperature", "learned_temperature", "separate_emit", "mixing")


def token_choice_config(config: ModelConfig) -> ModelConfig:
    """The token-choice architecture that an Expert Choice or Mixture of Tokens model can turn into.

    Gates are the softmax scores, not normalised, as in the leak-free evaluation of the model before. Raises InputError
    where the weights do not score experts one by one (soft MoE, uniform mixing) or there is nothing to turn.
    """
    moe = config.moe
    if moe is None or not moe.traits.grouped:
        raise InputError("transition: only a model with expert_choice or mixture_of_tokens can turn to token_choice")
    if moe.router == "soft" or moe.mixing == "uniform":
        raise InputError(f"transition: the router {moe.router} has no score for each expert to choose by")
    options = {key: value for key, value in moe.to_dict().items() if key not in _GROUP_OPTIONS}
    return config.replace(moe={**options, "router": "token_choice", "score": "softmax", "normalize_gates": False})
