"""Shapes built from widths, against the shape of the architecture that each row describes."""

from dataclasses import replace

import numpy as np
import pytest

from moelab.architecture import Shape, load_preset
from moelab.errors import InputError

WIDTHS = np.array([128, 256, 512])


def some_shapes(**options: object) -> Shape:
    """Three widths (3, 1) x a dense model and two MoE models (3,)."""
    return Shape.of_widths(
        WIDTHS[:, None],
        np.array([4]),
        3 * WIDTHS[:, None],
        vocab_size=512,
        head_dim=32,
        heads_per_kv=2,
        n_dense_layers=np.array([0, 0, 1]),
        n_experts=np.array([0, 8, 16]),
        top_k=np.array([0, 1, 2]),
        d_expert=np.array([0, 64, 32]),
        n_shared_experts=np.array([0, 0, 1]),
        d_shared=np.array([0, 0, 32]),
        **options,
    )


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"activation": "gelu", "qk_norm": "none", "tie_embeddings": False},
        {"qk_norm": "full", "attention_bias": True},
    ],
)
def test_each_row_is_the_shape_of_its_architecture(options: dict[str, object]) -> None:
    shapes = some_shapes(**options)
    full = {name: np.broadcast_to(getattr(shapes, name), (3, 3)) for name in Shape.__dataclass_fields__}
    for row in np.ndindex(3, 3):
        one = Shape(**{name: int(value[row]) for name, value in full.items()})
        config = one.config(activation=options.get("activation", "swiglu"))
        no_dense_layer = one.n_moe_layers == one.n_layers
        assert Shape.of(config) == replace(one, d_ff=0 if no_dense_layer else one.d_ff)
        assert (config.moe is None) == (row[1] == 0)
        if config.moe is not None:
            assert config.moe.normalize_gates == (config.moe.top_k > 1)
            assert not one.config(activation=config.activation, normalize_gates=False).moe.normalize_gates


def test_a_row_that_fits_no_architecture_is_refused() -> None:
    row = Shape.of(load_preset("llama3-8b"))
    with pytest.raises(InputError, match="n_heads"):
        replace(row, n_kv_heads=5).config()
