"""Ready choices of routing: what they stand for, by hand and from a shape."""

import pytest

from moelab.architecture import ROUTING_CHOICES, ModelConfig, MoEConfig, Shape, routing_fields
from moelab.errors import InputError

SIZES = {"n_experts": 8, "top_k": 2, "d_expert": 16}


def test_loss_free_is_deepseek_v3s() -> None:
    moe = MoEConfig.parse({**SIZES, "routing": "loss_free"})
    assert (moe.score, moe.bias_update, moe.balance_loss, moe.z_loss) == ("sigmoid", 0.001, 0.0001, 0)
    assert moe.normalize_gates
    assert moe == MoEConfig.parse({**SIZES, **routing_fields("loss_free")})
    assert "routing" not in moe.to_dict()
    assert MoEConfig.parse(moe.to_dict()) == moe


def test_what_is_written_beside_a_choice_holds() -> None:
    moe = MoEConfig.parse({**SIZES, "top_k": 1, "routing": "loss_free", "bias_update": 0.01})
    assert (moe.bias_update, moe.score, moe.normalize_gates) == (0.01, "sigmoid", False)


def test_softmax_is_the_default() -> None:
    assert MoEConfig.parse({**SIZES, "routing": "softmax"}) == MoEConfig.parse(SIZES)


@pytest.mark.parametrize("name", ROUTING_CHOICES)
def test_a_shape_takes_a_choice(name: str) -> None:
    sizes = {"vocab_size": 64, "d_model": 32, "n_layers": 2, "n_heads": 2, "moe": {**SIZES, "routing": name}}
    config = ModelConfig.parse(sizes)
    assert Shape.of(config).config(routing=name) == config  # type: ignore[arg-type]


def test_unknown_choices_are_named() -> None:
    with pytest.raises(InputError, match="routing: must be one of softmax, loss_free, got 'best'"):
        MoEConfig.parse({**SIZES, "routing": "best"})
    with pytest.raises(InputError, match="routing: must be one of softmax, loss_free, got 3"):
        MoEConfig.parse({**SIZES, "routing": 3})
