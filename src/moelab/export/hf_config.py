"""config.json of a class of transformers for an architecture, without its weights."""

from typing import Any

from moelab.architecture import ModelConfig
from moelab.export.family import Family
from moelab.export.settings import rope_parameters

_TORCH_NAMES = {"fp32": "float32", "bf16": "bfloat16", "f16": "float16"}


def hugging_face_config(
    config: ModelConfig, family: Family, dtype: str, context: int, end_of_text: int | None
) -> dict[str, Any]:
    """The class's config.json. `context` is the length trained on; every document began after `end_of_text`
    (None: no tokenizer is chosen yet)."""
    return {
        "architectures": [family.class_name],
        "model_type": family.model_type,
        "vocab_size": config.vocab_size,
        "hidden_size": config.d_model,
        "num_hidden_layers": config.n_layers,
        "num_attention_heads": config.n_heads,
        "num_key_value_heads": config.n_kv_heads,
        "head_dim": config.head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": context,
        "rms_norm_eps": config.norm_eps,
        "rope_theta": config.rope_theta,
        "rope_parameters": rope_parameters(config),
        "tie_word_embeddings": config.tie_embeddings,
        "attention_dropout": 0.0,
        "bos_token_id": end_of_text,
        "eos_token_id": end_of_text,
        "pad_token_id": None,
        "use_cache": True,
        "dtype": _TORCH_NAMES[dtype],
        **family.settings(config),
    }
