"""From the config.json of a Hugging Face model to its architecture."""

import re
from collections.abc import Mapping
from typing import Any

from moelab.architecture.config import ModelConfig
from moelab.architecture.huggingface.families import ALIASES, FAMILIES, Family
from moelab.architecture.huggingface.refused import refused
from moelab.architecture.huggingface.settings import Settings
from moelab.errors import InputError
from moelab.printable import short

NAMES = {
    "vocab_size": "vocab_size",
    "d_model": "hidden_size",
    "n_layers": "num_hidden_layers",
    "n_heads": "num_attention_heads",
    "n_kv_heads": "num_key_value_heads",
    "d_ff": "intermediate_size",
    "head_dim": "head_dim",
    "sliding_window": "sliding_window",
    "moe: top_k": "num_experts_per_tok",
    "moe: n_group": "n_group",
    "moe: topk_group": "topk_group",
    "moe: normalize_gates": "norm_topk_prob",
}
"""Fields of moelab whose checks a config.json can fail, with the key that most classes have for each."""


def is_huggingface(value: Any) -> bool:
    """Whether these are the settings of a Hugging Face model: moelab's own configs have no such keys."""
    return isinstance(value, Mapping) and ("model_type" in value or "architectures" in value)


def read_huggingface(value: Mapping[str, Any], where: str = "config.json") -> ModelConfig:
    """The architecture of a model from its config.json; of a multimodal one, its text part.

    What concerns training alone (dropout, loss weights) is left at moelab's defaults. Raises InputError in one line
    that names the file and the key: for bad values, and for what moelab cannot represent.
    """
    values, family = _family_of(value, where)
    fields = family.read(Settings(values, family.defaults, where, family.parts))
    try:
        return ModelConfig.parse({name: value for name, value in fields.items() if value is not None}, where)
    except InputError as error:
        raise InputError(_in_their_words(str(error), where)) from None


def _family_of(value: Mapping[str, Any], where: str) -> tuple[Mapping[str, Any], Family]:
    """The settings of the text model and its family. Raises InputError naming the key where moelab has none."""
    model_type = value.get("model_type")
    if model_type is None:
        raise InputError(f"{where}: model_type: is required")
    if not isinstance(model_type, str):
        raise InputError(f"{where}: model_type: expected a name, got {short(model_type)}")
    inner = value.get("text_config")
    if isinstance(inner, Mapping) and inner:
        own = inner.get("model_type", ALIASES.get(model_type, model_type))
        return _family_of({**inner, "model_type": own}, f"{where}: text_config")
    found = refused(value, model_type)
    if found is not None:
        raise InputError(f"{where}: {found[0]}: moelab cannot represent {found[1]}")
    family = FAMILIES.get(ALIASES.get(model_type, model_type))
    if family is None:
        known = ", ".join(FAMILIES)
        raise InputError(f"{where}: model_type: {short(model_type)} is not known; known: {known}")
    return value, family


def _in_their_words(message: str, where: str) -> str:
    """An error of ModelConfig with the key of config.json before the field."""
    found = re.match(r"((?:moe: )?[a-z_]+): ", message.removeprefix(f"{where}: "))
    key = NAMES.get(found.group(1)) if found else None
    if key is None or found is None or key == found.group(1):
        return message
    rest = message.removeprefix(f"{where}: ").removeprefix(found.group(0))
    return f"{where}: {key} (here {found.group(1).replace(': ', '.')}): {rest}"
