"""Near-equal designs are one row; laws of granularity, cost and practice settle which of them is built."""

import numpy as np
import pytest

from moelab.architecture import ModelConfig
from moelab.architecture.presets import load_preset
from moelab.laws import get_law
from moelab.laws.design import Design
from moelab.planning import Budget, Space
from moelab.planning.chosen_laws import laws_of
from moelab.planning.given_laws import predictors_of
from moelab.planning.granularity import granularity_excess, mean_excess
from moelab.planning.lattice import enumerate_designs
from moelab.planning.plan import plan
from moelab.planning.practice import distance_from_practice
from moelab.planning.search import search
from moelab.planning.settle import PUBLISHED_TIE, SIZE, TIE, near_equal, settle, settled_rows, tie_of

OPEN = Space(
    d_model=(1024, 2048), n_layers=(12, 16, 24), head_dim=(128,), heads_per_kv=(4,), ffn_ratio=(4,),
    n_experts=(16, 32, 64, 128), top_k=(1, 2, 4, 8), n_shared_experts=(0,), n_dense_layers=(0,), vocab_size=32000,
)  # fmt: skip
"""Sizes with the same share of experts in use, cut finer and finer."""


def with_granularity(granularity: int, d_model: int = 2048) -> Design:
    """A MoE of expansion 16 whose experts are cut `granularity` times."""
    model = ModelConfig.parse(
        {
            "vocab_size": 32000, "d_model": d_model, "n_layers": 16, "n_heads": 16,
            "moe": {
                "n_experts": 16 * granularity, "top_k": granularity, "d_expert": 8192 // granularity,
                "normalize_gates": False,
            },
        }
    )  # fmt: skip
    return Design.of(model, np.array([50e9]), 4096)


def test_krajewskis_excess_is_the_extra_loss_over_the_laws_own_slope() -> None:
    """The dumb way: losses on a grid of granularities, and the slope by growing size and data together."""
    design = with_granularity(2)
    law = get_law("krajewski2024-x16")
    size, tokens = np.clip(design.params_without_router, 0.129e9, 3.7e9), np.clip(design.tokens, 16e9, 130e9)

    def loss(granularity: float, growth: float = 1.0) -> float:
        values = {"params_non_embedding": size * growth, "tokens": tokens * growth, "granularity": granularity}
        return float(law.loss(law.published, {name: np.asarray(v, float).ravel() for name, v in values.items()})[0])

    best = min(loss(float(g)) for g in np.exp(np.linspace(0, np.log(16), 43)))
    slope = (loss(2.0) - loss(2.0, float(np.exp(0.05)))) / 0.1
    assert granularity_excess(design)["krajewski2024"][0] == pytest.approx((loss(2.0) - best) / slope, rel=1e-6)


def test_finer_experts_are_better_up_to_the_laws_optimum_and_unknown_beyond_their_range() -> None:
    excess = {g: granularity_excess(with_granularity(g)) for g in (1, 2, 4, 8, 16, 32)}
    krajewski = [float(excess[g]["krajewski2024"][0]) for g in (1, 2, 4, 8, 16)]
    assert krajewski == sorted(krajewski, reverse=True)
    assert krajewski[-1] == pytest.approx(0, abs=1e-9)
    assert np.isnan(excess[32]["krajewski2024"][0])
    assert np.isnan(excess[1]["tian2025"][0])  # 2 d_model / d_expert = 0.5


def test_lings_best_granularity_is_that_of_its_formula() -> None:
    """log2 G = -beta / (2 gamma) = 0.117 / 0.0334, about 11.3."""
    excess = {g: float(granularity_excess(with_granularity(g))["tian2025"][0]) for g in range(4, 33)}
    best = min(excess, key=lambda g: excess[g])
    assert best / 2 == pytest.approx(2 ** (0.117 / 0.0334), rel=0.03)
    assert excess[best] == pytest.approx(0, abs=1e-3)


def test_dense_models_have_no_granularity() -> None:
    excess = granularity_excess(Design.of(load_preset("llama3-8b"), np.array([1e12]), 4096))
    assert all(values[0] == 0 for values in excess.values())


def test_laws_are_averaged_where_they_apply_and_the_uncovered_come_last() -> None:
    columns = [np.array([0.1, np.nan, np.nan]), np.array([0.3, 0.2, np.nan])]
    assert mean_excess(columns).tolist() == pytest.approx([0.2, 0.2, 1.2])


def test_practice_prefers_released_experts_to_a_single_one_and_to_very_many() -> None:
    rows = {"16": (16, 1), "128": (128, 8), "512": (512, 32)}
    space = OPEN.replace(n_experts=[16, 128, 512], top_k=[1, 8, 32], d_expert_step=8, min_d_expert=8)
    lattice = enumerate_designs(space)
    far = distance_from_practice(lattice)
    found = {
        name: float(far[(lattice.n_experts == e) & (np.asarray(lattice.shape.top_k) == k)].min())
        for name, (e, k) in rows.items()
    }
    assert found["128"] < 0.5
    assert found["16"] > 1
    assert found["512"] > 1


def test_designs_equal_to_the_ensemble_are_one_row_that_names_the_open_axes() -> None:
    """Laws of total size and sparsity cannot distinguish 16 top-1 from 128 top-8; laws of granularity can."""
    found = plan(Budget(flops=1e21, max_params=10e9), ["abnar2025", "ludziejewski2025"], OPEN)
    experts, chosen = found.equivalent, f"{found.best.n_experts} top-{found.best.top_k}"
    assert len(experts) > 1
    shares = {int(text.split()[0]) // int(text.split("-")[1]) for text in experts}
    assert len(shares) == 1
    assert chosen in experts
    assert found.best.top_k == max(int(text.split("-")[1]) for text in experts) == 8
    assert found.open_axes["top_k"][1] == 8.0
    assert found.settled_by[0]["by"] == "granularity"
    assert chosen in found.settled_by[0]["experts"]
    plain = found.to_dict()
    assert plain["open_axes"]["top_k"] == list(found.open_axes["top_k"])
    assert plain["equivalent"] == found.equivalent


def test_rows_differ_in_size_and_the_first_is_near_equal_to_the_best() -> None:
    budget = Budget(flops=1e21, max_params=10e9)
    ranking = search(enumerate_designs(Space()), budget, predictors_of(laws_of(["ludziejewski2025"])))
    rows = settled_rows(ranking, 6)
    chosen = [row.chosen for row in rows]
    assert len(set(chosen)) == 6
    assert float(ranking.behind(np.array(chosen[:1]), ranking.best)[0]) <= tie_of(ranking) == TIE
    lattice = ranking.feasible.lattice
    sizes = np.log(np.stack([lattice.params_active[chosen], lattice.params_total[chosen]]))
    apart = np.abs(sizes[:, :, None] - sizes[:, None]).max(axis=0)
    assert (apart[~np.eye(6, dtype=bool)] > np.log1p(-SIZE) * -0.2).all()


def test_the_settled_design_is_one_of_the_near_equal_ones() -> None:
    budget = Budget(flops=1e21, max_params=10e9)
    ranking = search(enumerate_designs(OPEN), budget, predictors_of(laws_of(["ludziejewski2025"])))
    near = near_equal(ranking, ranking.best, ranking.order)
    row = settle(ranking, near)
    assert row.chosen in near
    assert ranking.best in near
    assert row.steps[0]["by"] == "granularity"
    kept = [step["kept"] for step in row.steps]
    assert kept == sorted(kept, reverse=True)


def test_the_five_factor_excess_is_the_extra_loss_over_the_laws_own_slope() -> None:
    """The dumb way: the law on a grid of experts in use and shared shares, and its slope by a small step."""
    design, law = with_granularity(2), get_law("fivefactor2025")

    def loss(active: float, share: float, growth: float = 1.0) -> float:
        sizes = {name: getattr(design, name) * growth for name in ("params_total", "params_active", "tokens")}
        values = sizes | {"active_experts": np.array([active]), "shared_share": np.array([share])}
        return float(law.loss(law.published, values)[0])

    best = min(loss(g, s) for g in np.linspace(1, 16, 301) for s in np.linspace(0, 0.5, 51))
    slope = (loss(2.0, 0.0) - loss(2.0, 0.0, float(np.exp(5e-7)))) / 1e-6
    assert granularity_excess(design)["fivefactor2025"][0] == pytest.approx((loss(2.0, 0.0) - best) / slope, rel=1e-4)


def test_larger_models_have_more_experts_in_practice() -> None:
    """Of released models: 64 or 128 experts below 50B, 160 to 384 from 300B on."""
    space = Space(attention=["full"]).replace(kinds=["moe"], n_experts=[64, 128, 256], top_k=[8])
    lattice = enumerate_designs(space)
    far = distance_from_practice(lattice)

    def preferred(total: float) -> int:
        near = np.abs(np.log(lattice.params_total / total)) < 0.1
        return int(lattice.n_experts[np.where(near, far, np.inf).argmin()])

    assert preferred(30e9) == 128
    assert preferred(700e9) == 256


def test_an_ensemble_of_published_laws_resolves_less_than_one_law_alone() -> None:
    """Their losses are known to 0.015 nats; a law that is given alone is followed."""
    lattice, budget = enumerate_designs(OPEN), Budget(flops=1e21, max_params=10e9)
    several = search(lattice, budget, predictors_of(laws_of(["ludziejewski2025", "abnar2025"])))
    alone = search(lattice, budget, predictors_of(laws_of(["ludziejewski2025"])))
    assert (tie_of(several), tie_of(alone)) == (PUBLISHED_TIE, TIE)
    for ranking in (several, alone):
        near = near_equal(ranking, ranking.best, ranking.order)
        assert ranking.behind(near, ranking.best).max() <= tie_of(ranking)
        assert settle(ranking, near).chosen in near


def test_a_jittered_budget_keeps_the_experts() -> None:
    chosen = set()
    for factor in (0.99, 0.995, 1.0, 1.005, 1.01):
        best = plan(Budget(flops=1e21 * factor, max_params=10e9), None, OPEN, top=1).best
        chosen.add((best.n_experts, best.top_k, best.is_moe))
    assert len(chosen) == 1
    assert chosen.pop()[1:] == (8, True)


def test_a_balance_settles_experts_by_what_laws_distinguish_and_not_by_the_edge_of_what_is_allowed() -> None:
    """Beyond the excess allowed each per cent counts ten: designs 5 % apart there are still near-equal."""
    wanted = {"hardware": "h100", "tokens": 1e13, "traffic": {"prompt": 2000, "output": 500, "tpot": 0.05}}
    asked = Budget.parse({"flops": 1e22, "max_params": 4e10, "unique_tokens": 2e12, "serving": wanted})
    ranking = search(enumerate_designs(Space()), asked, predictors_of(laws_of(None)))
    lifetime, row = ranking.lifetime, settled_rows(ranking, 1)[0]
    assert lifetime is not None
    assert ranking.score[row.chosen] > ranking.score[ranking.best] + PUBLISHED_TIE
    assert lifetime.balance[row.near].max() <= lifetime.balance[ranking.best] - np.log1p(-PUBLISHED_TIE)
    assert ranking.log_excess[row.near].max() <= lifetime.most - np.log1p(-PUBLISHED_TIE)
    assert [step["by"] for step in row.steps] == ["granularity", "practice"]
    assert {"384 top-16+1", "160 top-6+2"} <= set(row.steps[0]["experts"])
    assert row.steps[1]["experts"] == ["160 top-6+2"]
