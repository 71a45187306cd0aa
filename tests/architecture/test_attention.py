"""Options of attention that do not fit together are refused by their field's name."""

from typing import Any

import pytest

from moelab.architecture import ModelConfig
from moelab.errors import InputError

SIZES = {"vocab_size": 30, "d_model": 8, "n_layers": 2, "n_heads": 4, "head_dim": 6, "n_kv_heads": 2, "d_ff": 10}
MLA = {"kv_lora_rank": 6, "qk_nope_head_dim": 4, "qk_rope_head_dim": 2, "v_head_dim": 3}
LLAMA3 = {"kind": "llama3", "factor": 8, "original_context": 64, "low_freq_factor": 4, "high_freq_factor": 3}


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"rope_scaling": {"kind": "yarn", "factor": 4}}, "original_context: yarn scaling needs it"),
        ({"rope_scaling": {**LLAMA3, "low_freq_factor": None}}, "low_freq_factor: llama3 scaling needs it"),
        ({"rope_scaling": LLAMA3}, r"high_freq_factor: must be at least low_freq_factor \(4"),
        ({"sliding_pattern": ["window"]}, "sliding_window: sliding_pattern has `window` layers"),
        ({"sliding_n_kv_heads": 3, "sliding_window": 4}, r"sliding_n_kv_heads: must divide n_heads \(4\)"),
        ({"sliding_rope_theta": 5}, "sliding_rope_theta: needs sliding_window"),
        ({"rotary_dim": 8}, r"rotary_dim: must be even and at most head_dim \(6\)"),
        ({"attention_temperature": {}}, "attention_temperature: acts in layers without positions"),
        ({"mla": MLA, "attention_gate": "head"}, "attention_gate: latent attention"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_refused(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        ModelConfig.parse({**SIZES, **changes})


def test_linear_scaling_needs_a_factor_alone() -> None:
    found = ModelConfig.parse({**SIZES, "rope_scaling": {"kind": "linear", "factor": 4}})
    assert ModelConfig.parse(found.to_dict()) == found
