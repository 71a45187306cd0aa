"""Sizes of the routers: Mixture of Tokens costs what the dense FFN does, plus the mixing the paper counts."""

import pytest

from moelab.architecture import ModelConfig, MoEConfig, count_flops, count_parameters
from moelab.errors import InputError


@pytest.mark.parametrize("mixtures", [1, 4])
def test_mixture_of_tokens_matches_the_dense_ffn(mixtures: int) -> None:
    sizes = {"vocab_size": 100, "d_model": 64, "n_layers": 2, "n_heads": 4}
    moe = MoEConfig.mixture_of_tokens(d_ff=256, group_size=32, mixtures=mixtures)
    mixing = ModelConfig.parse({**sizes, "moe": moe.to_dict()})
    dense = ModelConfig.parse({**sizes, "d_ff": 256})
    assert count_flops(mixing, 16).experts == count_flops(dense, 16).dense_ffn
    # controller, merge and emit: 6 d E per token and layer
    assert count_flops(mixing, 16).router == 2 * 6 * 64 * 32 * mixtures
    assert count_parameters(mixing).experts == 32 * count_parameters(dense).dense_ffn
    assert (moe.expansion, moe.granularity) == (32, mixtures)


def test_mixtures_must_divide_the_width() -> None:
    with pytest.raises(InputError, match="mixtures: must divide d_ff"):
        MoEConfig.mixture_of_tokens(d_ff=256, group_size=32, mixtures=3)
