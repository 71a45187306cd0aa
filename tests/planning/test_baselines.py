"""Dense baselines of equal size, comparisons, and the runs to train next."""

import numpy as np
import pytest

from moelab.architecture import ModelConfig, count_flops, count_parameters, load_preset
from moelab.architecture.presets import PRESETS
from moelab.errors import InputError
from moelab.fitting import FittedLaw
from moelab.laws import get_law
from moelab.planning import Budget, Space
from moelab.planning.baselines import dense_baseline, equal_pair, strict_pair
from moelab.planning.compare import check_equal, compare_designs
from moelab.planning.next_runs import choose_runs, next_runs
from moelab.planning.plan import plan

JOINT = get_law("ludziejewski2025")


@pytest.mark.parametrize("preset", ["mixtral-8x7b", "olmoe-1b-7b", "qwen3-30b-a3b", "gpt-oss-120b"])
def test_the_baseline_is_dense_and_as_large(preset: str) -> None:
    moe = load_preset(preset)
    dense = dense_baseline(moe)
    assert dense.moe is None
    assert count_parameters(dense).params_total == pytest.approx(count_parameters(moe).params_total, rel=5e-3)
    assert 1.5 <= dense.d_ff / dense.d_model <= 6
    assert 0.4 < (dense.d_model / dense.n_layers) / (moe.d_model / moe.n_layers) < 2.5


@pytest.mark.parametrize("preset", ["mixtral-8x7b", "olmoe-1b-7b", "qwen3-30b-a3b", "gpt-oss-120b", "glm-4.5-air"])
def test_the_baseline_has_the_designs_ratio_of_query_to_kv_heads(preset: str) -> None:
    moe = load_preset(preset)
    dense = dense_baseline(moe)
    assert dense.n_heads / dense.n_kv_heads == moe.n_heads / moe.n_kv_heads
    assert dense.head_dim == moe.head_dim


@pytest.mark.parametrize("preset", ["deepseek-v3", "moonlight-16b-a3b"])
def test_beside_latent_attention_the_baseline_has_the_kv_heads_of_released_dense_models(preset: str) -> None:
    moe = load_preset(preset)
    released = [load_preset(name) for name in PRESETS]
    practice = {model.n_kv_heads for model in released if model.moe is None}
    assert practice == {dense_baseline(moe).n_kv_heads}
    assert dense_baseline(moe).mla is None


def test_windowed_layers_of_the_baseline_keep_their_own_ratio() -> None:
    moe = load_preset("gpt-oss-20b").replace(sliding_n_kv_heads=16)
    dense = dense_baseline(moe)
    assert dense.sliding_n_kv_heads is not None
    assert (dense.n_heads / dense.n_kv_heads, dense.n_heads / dense.sliding_n_kv_heads) == (8, 4)


def test_where_no_width_has_the_ratio_the_nearest_divisor_stands_in() -> None:
    """The only widths with 64 heads per KV head are far beyond this size."""
    moe = load_preset("olmoe-1b-7b").replace(n_heads=64, n_kv_heads=1, head_dim=128)
    dense = dense_baseline(moe, 40_000_000)
    assert dense.n_heads < 64
    assert dense.n_kv_heads == 1


def test_tiny_baselines_too(tiny: Space) -> None:
    result = plan(Budget(flops=5e12), [JOINT], tiny, top=5)
    designs = [design for design in result.candidates if design.is_moe]
    assert designs
    for design in designs:
        (dense, dense_tokens, _), (moe, moe_tokens, unique) = strict_pair(design, tiny.seq_len)
        assert count_parameters(dense).params_total == pytest.approx(design.params_total, rel=0.02)
        assert moe == design.config
        assert unique == dense_tokens < moe_tokens


def test_strict_and_loose_reuse() -> None:
    moe = load_preset("olmoe-1b-7b")
    (dense, dense_tokens, dense_unique), (_, tokens, unique) = equal_pair(moe, 1e21)
    ratio = count_flops(dense, 4096).train / count_flops(moe, 4096).train
    assert tokens / unique == pytest.approx(ratio, rel=1e-4)
    assert dense_unique == dense_tokens == unique
    _, (_, tokens, unique) = equal_pair(moe, 1e21, reuse="loose")
    assert tokens / unique == pytest.approx(2, rel=1e-6)
    with pytest.raises(InputError, match="do not train these models on a sequence"):
        equal_pair(moe, 1e9)


def test_a_comparison_adds_up(tiny: Space, fits: list[FittedLaw]) -> None:
    design = plan(Budget(flops=5e12), fits, tiny).best
    dense, moe = strict_pair(design, tiny.seq_len)
    result = compare_designs([("moe", moe), ("dense", dense)], fits, seq_len=tiny.seq_len, extrapolate=True)
    check_equal(result.sides, ["params", "flops", "unique_tokens"], tolerance=0.02)
    with pytest.raises(InputError, match="equal tokens: the designs differ"):
        check_equal(result.sides, ["tokens"])
    gap = result.differences[0]["ludziejewski2025"]
    values = [side.loss["ludziejewski2025"].value for side in result.sides]
    assert gap["value"] == pytest.approx(values[1] - values[0])
    assert gap["low"] <= gap["high"]
    assert 0 <= gap["p_first_better"] <= 1
    assert result.sides[0].epochs == pytest.approx(moe[1] / moe[2])
    assert set(result.to_dict()) == {"designs", "loss_minus_first", "warnings", "flops_convention"}


def test_the_next_runs_lower_the_regret(tiny: Space, fits: list[FittedLaw]) -> None:
    chosen = next_runs(Budget(flops=5e13), fits, tiny, count=3, flops_each=2e12)
    left = [chosen.regret_now, *(run.regret_after for run in chosen.runs)]
    assert len(chosen.runs) == 3
    assert left[1] <= left[0] + 1e-9
    assert left[-1] < 0.9 * left[0]
    assert all(run.candidate.train_flops <= 2e12 * 1.0001 for run in chosen.runs)
    assert len({str(run.candidate.config) for run in chosen.runs}) == 3


def test_the_next_run_distinguishes_the_possible_truths() -> None:
    """Two possible truths, two decisions: only a run on which the truths differ is worth training."""
    truth = np.array([[1.0, 2.0]] * 50 + [[2.0, 1.0]] * 50)
    runs = np.log(np.stack([np.full(100, 3.0), np.repeat([3.0, 3.3], 50), np.full(100, 2.5)], axis=1))
    chosen, left, now = choose_runs(truth, np.full(100, 0.01), runs, 0.01, 1)
    assert chosen == [1]
    assert now == pytest.approx(0.5)
    assert left[0] < 0.01


def test_runs_of_more_compute_than_the_plan_are_refused(tiny: Space, fits: list[FittedLaw]) -> None:
    budget = Budget(flops=5e12)
    for each in (5.1e12, 1e300, 0.0, -1.0, float("nan")):
        with pytest.raises(InputError, match="flops_each: must be above 0 and at most the plan's own compute, 5T, got"):
            next_runs(budget, fits, tiny, count=2, flops_each=each)
    assert next_runs(budget, fits, tiny, count=1, flops_each=5e12).warnings == ()
    with pytest.raises(InputError, match=r"no design of the space has 0\.5 to 20,000 tokens per active parameter"):
        next_runs(budget, fits, tiny, count=1, flops_each=2e9)
    found = next_runs(budget, fits, tiny, count=2, flops_each=3e12)
    assert len(found.warnings) == 1
    assert found.warnings[0].startswith(
        "these runs together cost 6T FLOPs (full square), more than the plan's own compute (5T)"
    )
    assert found.to_dict()["warnings"] == list(found.warnings)
    with pytest.raises(InputError, match="next_runs: must be 1 to 100, got 101"):
        next_runs(budget, fits, tiny, count=101)


def test_next_runs_need_a_fit(tiny: Space) -> None:
    with pytest.raises(InputError, match="next_runs: needs laws fitted"):
        next_runs(Budget(flops=5e12), [JOINT], tiny)


def test_the_baseline_of_a_dense_model_is_as_large() -> None:
    model = ModelConfig(
        vocab_size=512, d_model=64, n_layers=2, n_heads=4, n_kv_heads=4, head_dim=16, d_ff=192, tie_embeddings=True
    )
    baseline = dense_baseline(model)
    assert count_parameters(baseline).params_total == pytest.approx(count_parameters(model).params_total, rel=0.02)
