"""Sizes that no model can have are refused by the field that has them."""

import pytest

from moelab.architecture import ModelConfig
from moelab.errors import InputError


@pytest.mark.parametrize("value", ["1e300", 1e300, "300T", 0, "many", 48.5])
@pytest.mark.parametrize("field", ["d_model", "n_layers"])
def test_an_impossible_size_is_named(field: str, value: object) -> None:
    sizes = {"vocab_size": 512, "d_model": 48, "n_layers": 2, "n_heads": 3, "d_ff": 64}
    with pytest.raises(InputError, match=f"^{field}: "):
        ModelConfig.parse({**sizes, field: value})


def test_a_width_may_be_written_as_a_count() -> None:
    assert (
        ModelConfig.parse({"vocab_size": 512, "d_model": "3K", "n_layers": 2, "n_heads": 3, "d_ff": 64}).head_dim
        == 1000
    )
