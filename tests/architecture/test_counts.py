"""Counts against published totals, the definition by part, and the vectorised path against the scalar one."""

import numpy as np
import pytest

from moelab.architecture import Shape, count_flops, count_parameters, load_preset
from moelab.architecture.count import count
from moelab.architecture.memory import kv_bytes, training_memory, weight_bytes
from moelab.errors import InputError

PUBLISHED = [  # preset, total, active, both as the model's report prints them (rounded)
    ("mixtral-8x7b", 46.7e9, 12.88e9),
    ("olmoe-1b-7b", 6.92e9, 1.282e9),
    ("qwen3-30b-a3b", 30.53e9, 3.353e9),
    ("deepseek-v3", 671.03e9, 37.55e9),
    ("llama3-8b", 8.03e9, 8.03e9),
    ("gpt-oss-120b", 116.83e9, 5.71e9),
]


@pytest.mark.parametrize(("preset", "total", "active"), PUBLISHED)
def test_presets_match_published_totals(preset: str, total: float, active: float) -> None:
    params = count_parameters(load_preset(preset))
    assert params.params_total == pytest.approx(total, rel=2e-3)
    assert params.params_active == pytest.approx(active, rel=2e-3)
    assert sum(params.parts.values()) == params.params_total


def test_a_lattice_counts_like_its_members() -> None:
    shapes = [Shape.of(load_preset(name)) for name, *_ in PUBLISHED]
    lattice = Shape(
        **{name: np.array([getattr(shape, name) for shape in shapes]) for name in Shape.__dataclass_fields__}
    )
    together = count_parameters(lattice).params_total
    flops = count_flops(lattice, 4096).train
    for index, shape in enumerate(shapes):
        assert together[index] == count_parameters(shape).params_total
        assert flops[index] == count_flops(shape, 4096).train


def test_causal_counts_half_the_scores() -> None:
    model = load_preset("llama3-8b")
    full, half = count_flops(model, 4096), count_flops(model, 4096, causal=True)
    assert half.attention_scores / full.attention_scores == pytest.approx(4097 / 8192)
    assert half.head == full.head


def test_memory_of_a_known_model() -> None:
    model = load_preset("llama3-8b")
    assert weight_bytes(model) == 2 * count_parameters(model).params_total
    assert kv_bytes(model, 1) == 2 * 32 * 8 * 128 * 2
    assert kv_bytes(load_preset("deepseek-v3"), 1) == 61 * (512 + 64) * 2
    assert training_memory(model).total == 18 * count_parameters(model).params_total
    assert training_memory(model, "fp32").total == 16 * count_parameters(model).params_total


def test_mxfp4_stores_experts_alone_and_block_formats_leave_the_cache_in_16_bits() -> None:
    gpt_oss, dense = load_preset("gpt-oss-120b"), load_preset("llama3-8b")
    assert weight_bytes(gpt_oss, "mxfp4") / 2**30 == pytest.approx(60.8, rel=0.02)  # as released, arXiv 2508.10925
    assert weight_bytes(dense, "mxfp4") == weight_bytes(dense)
    assert weight_bytes(dense, "nvfp4") == 9 / 16 * count_parameters(dense).params_total
    assert kv_bytes(dense, 9, "mxfp4") == kv_bytes(dense, 9, "nvfp4") == kv_bytes(dense, 9)
    assert kv_bytes(dense, 9, "int4") == kv_bytes(dense, 9) / 4


@pytest.mark.parametrize(
    ("preset", "precision", "weights", "cache"),
    [
        ("gpt-oss-120b", "mxfp4", "mxfp4", "bf16"), ("llama3-8b", "mxfp4", "bf16", "bf16"),
        ("llama3-8b", "nvfp4", "nvfp4", "bf16"), ("llama3-8b", "fp8", "fp8", "fp8"),
    ],
)  # fmt: skip
def test_memory_is_labelled_with_the_precision_it_is_counted_in(
    preset: str, precision: str, weights: str, cache: str
) -> None:
    counted = count(preset, precision=precision)
    labels = [label for label, _ in counted.memory_rows()]
    assert labels[:2] == [f"weights ({weights})", f"KV cache of one sequence of 4,096 ({cache})"]
    assert counted.memory["weights"] == weight_bytes(counted.config, weights)
    assert counted.memory["kv_cache"] == kv_bytes(counted.config, 4096, cache)


def test_memory_names_what_is_known() -> None:
    with pytest.raises(InputError, match=r"precision: no such precision 'fp3'; known: fp32, bf16"):
        weight_bytes(load_preset("llama3-8b"), "fp3")
    with pytest.raises(InputError, match="optimizer: no such optimizer"):
        training_memory(load_preset("llama3-8b"), optimizer="lion")


@pytest.mark.parametrize(("preset", "published"), [("gpt-oss-120b", "5.133B"), ("deepseek-v3", "36.63B")])
def test_the_active_parameters_that_publications_give_have_a_row(preset: str, published: str) -> None:
    rows = {name: value for name, value, _ in count(preset).parameter_rows()}
    assert rows["active without the input embedding"] == published
    tied = count_rows_of_tied()
    assert "active without the input embedding" not in tied


def count_rows_of_tied() -> set[str]:
    """The rows of a model whose head is its input embedding."""
    model = load_preset("llama3-8b").replace(tie_embeddings=True)
    return {name for name, _, _ in count(model).parameter_rows()}
