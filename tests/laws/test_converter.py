"""The converter: each law receives its own N, experts, granularity and compute, or the reason why it does not apply."""

import numpy as np
import pytest

from moelab.architecture import ModelConfig, Shape, count_flops, count_parameters, load_preset
from moelab.laws import Design, all_laws, get_law


def model(**moe: int) -> ModelConfig:
    size = {"vocab_size": 1000, "d_model": 128, "n_layers": 4, "n_heads": 4}
    if not moe:
        return ModelConfig.parse({**size, "d_ff": 512})
    layers = {name: moe.pop(name) for name in ("n_dense_layers", "moe_every") if name in moe}
    return ModelConfig.parse({**size, **layers, "d_ff": 512, "moe": moe})


def read(law: str, config: ModelConfig, tokens: float = 1e9, **options) -> dict[str, float]:
    return {name: float(v) for name, v in get_law(law).variables_of(config, tokens, 512, **options).variables.items()}


def test_each_law_counts_its_own_parameters() -> None:
    config = model(n_experts=64, top_k=8, d_expert=64)
    counts = count_parameters(config)
    assert read("abnar2025", config)["params_total"] == counts.params_total
    assert read("krajewski2024", config)["params_non_embedding"] == counts.params_non_embedding - counts.router
    assert read("ludziejewski2025", config)["params_active"] == counts.params_active
    dense = read("yun2024", model(n_experts=8, top_k=2, d_expert=512))["params_dense"]
    assert dense == count_parameters(model()).params_non_embedding


def test_each_law_reads_its_own_axes() -> None:
    config = model(n_experts=64, top_k=8, d_expert=64)
    assert read("krajewski2024", config)["granularity"] == 8
    assert read("krajewski2024", config)["expansion"] == 8
    assert read("abnar2025", config)["sparsity"] == pytest.approx(1 - 8 / 64)
    assert read("ludziejewski2025", config)["expert_ratio"] == 8
    assert read("tian2025", config)["granularity_ling"] == 2 * 128 / 64
    shared = model(n_experts=63, top_k=7, d_expert=64, n_shared_experts=1, d_shared=64)
    assert read("tian2025", shared)["expert_activation"] == pytest.approx(8 / 64)
    assert read("fivefactor2025", shared)["active_experts"] == 8
    assert read("fivefactor2025", shared)["shared_share"] == pytest.approx(1 / 8)
    assert read("ludziejewski2025", shared)["expert_ratio"] == pytest.approx(64 / 8)


def test_compute_follows_each_convention() -> None:
    config = model(n_experts=64, top_k=8, d_expert=64)
    flops = count_flops(config, 512)
    assert read("abnar2025", config)["train_flops"] == pytest.approx(flops.train * 1e9)
    assert read("tian2025", config)["train_flops"] == pytest.approx(3 * (flops.forward - flops.head) * 1e9)


def test_dense_models_are_the_limit() -> None:
    assert read("abnar2025", model())["sparsity"] == 0
    assert read("ludziejewski2025", model())["expert_ratio"] == 1
    assert read("yun2024", model())["n_experts"] == 1
    assert read("yun2024", model())["params_dense"] == count_parameters(model()).params_non_embedding


def test_a_law_that_does_not_apply_gives_the_reason() -> None:
    why = {
        name: law.variables_of(model(n_experts=8, top_k=1, d_expert=512), 1e9).why() for name, law in all_laws().items()
    }
    assert why["abnar2025"] is why["ludziejewski2025"] is why["fivefactor2025"] is None
    assert why["hoffmann2022"] == "this law describes dense models only"
    assert why["krajewski2024"] == "the coefficients hold for an expansion of 64 only"
    assert why["clark2022-sbase"] == "the coefficients hold near 130B tokens only"
    dense = {name: law.variables_of(model(), 130e9).why() for name, law in all_laws().items()}
    assert dense["krajewski2024"] == "this law does not describe dense models"
    assert dense["hoffmann2022"] is dense["clark2022-hash"] is dense["krajewski2024-dense"] is None


def test_krajewski_applies_at_its_expansion_and_layout() -> None:
    law = get_law("krajewski2024")
    assert law.variables_of(model(n_experts=512, top_k=8, d_expert=64), 1e10).covered
    assert get_law("krajewski2024-x16").variables_of(model(n_experts=16, top_k=1, d_expert=512), 1e10).covered
    leading = model(n_experts=512, top_k=8, d_expert=64, n_dense_layers=1)
    assert law.variables_of(leading, 1e10).why() == "the law was fitted with MoE in every layer"
    assert law.variables_of(leading, 1e10, published=False).covered


def test_a_lattice_equals_its_members() -> None:
    configs = [model(n_experts=e, top_k=k, d_expert=w) for e, k, w in ((8, 1, 512), (64, 8, 64), (512, 8, 64))] + [
        model()
    ]
    shapes = [Shape.of(config) for config in configs]
    names = Shape.__dataclass_fields__
    lattice = Shape(**{name: np.array([getattr(shape, name) for shape in shapes]) for name in names})
    tokens = np.array([1e9, 2e9, 130e9, 130e9])
    for law in all_laws().values():
        together = law.variables_of(lattice, tokens, 512)
        for i, config in enumerate(configs):
            alone = law.variables_of(config, tokens[i], 512)
            assert bool(together.covered[i]) == bool(alone.covered)
            assert together.why(i) == alone.why()
            for name, values in together.variables.items():
                assert values[i] == pytest.approx(float(alone.variables[name]), rel=1e-14)


def test_presets_convert() -> None:
    mixtral = load_preset("mixtral-8x7b")
    assert read("yun2024", mixtral)["n_experts"] == 8
    assert read("krajewski2024", mixtral)["granularity"] == pytest.approx(1)
    assert read("ludziejewski2025", mixtral)["params_active"] == pytest.approx(12.88e9, rel=1e-3)


def test_unique_tokens_never_exceed_tokens() -> None:
    design = Design.of(model(), 1e9, 512, 5e9)
    assert float(design.unique_tokens) == 1e9
    assert read("muennighoff2023", model(), 4e9, unique_tokens=1e9)["unique_tokens"] == 1e9


def test_extrapolation_is_the_largest_distance_in_decades() -> None:
    law = get_law("ludziejewski2025")
    inside = {"params_active": 1e9, "tokens": 1e10, "expert_ratio": 8.0}
    assert law.extrapolation(inside) == 0
    assert law.extrapolation({**inside, "tokens": 8e12}) == pytest.approx(2)
    assert law.extrapolation({**inside, "tokens": 8e12, "params_active": 2.7e12}) == pytest.approx(3)
    assert np.isnan(get_law("hoffmann2022").extrapolation({"params_total": 1e9, "tokens": 1e10}))
    abnar = get_law("abnar2025")
    assert abnar.extrapolation({"sparsity": 0.995, "train_flops": 1e20}) == pytest.approx(1)


def test_fits_of_ones_own_count_as_tables_do() -> None:
    config = model(n_experts=64, top_k=8, d_expert=64)
    counts = count_parameters(config)
    own = read("krajewski2024", config, published=False)
    assert own["params_non_embedding"] == counts.params_non_embedding
    assert read("tian2025", config, published=False)["train_flops"] == count_flops(config, 512).train * 1e9
