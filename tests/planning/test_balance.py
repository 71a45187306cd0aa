"""Loss balanced against lifetime cost: the knee by a dumb loop, limits that do not move it, served tokens that do."""

from typing import Any

import numpy as np
import pytest

from moelab.errors import InputError
from moelab.planning import Budget, Space
from moelab.planning.balance import FAR, LEAST_BATCH, OUTSIDE, STEEP, reference_budget, unresolved, with_granularity
from moelab.planning.chosen_laws import laws_of
from moelab.planning.given_laws import predictors_of
from moelab.planning.lattice import enumerate_designs
from moelab.planning.lifetime import frontier_rows
from moelab.planning.limits import wider
from moelab.planning.plan import plan
from moelab.planning.ranking import Ranking
from moelab.planning.search import search
from moelab.planning.why import why
from moelab.planning.why_balance import knee_sentence

SPACE = Space(
    d_model=(1024, 1536, 2048, 3072), n_layers=(12, 16, 24, 32), head_dim=(128,), heads_per_kv=(4,), ffn_ratio=(4,),
    n_experts=(16, 64), top_k=(1, 4), n_shared_experts=(0,), n_dense_layers=(0,), vocab_size=32000,
)  # fmt: skip
LAWS = ["ludziejewski2025", "abnar2025"]


def budget(tokens: float = 1e13, **more: Any) -> Budget:
    return Budget.parse({"flops": 1e21, "serving": {"hardware": "h100", "tokens": tokens}, **more})


def ranked(asked: Budget) -> Ranking:
    return search(enumerate_designs(SPACE), asked, predictors_of(laws_of(LAWS)))


@pytest.fixture(scope="module")
def ranking() -> Ranking:
    return ranked(budget())


def sizes(found: Ranking, index: int) -> tuple[float, float]:
    lattice = found.feasible.lattice
    return float(lattice.params_active[index]), float(lattice.params_total[index])


def test_the_knee_has_the_least_excess_and_log_cost_of_a_dumb_loop(ranking: Ranking) -> None:
    lifetime, serving = ranking.lifetime, ranking.serving
    assert lifetime is not None
    assert serving is not None
    allowed, best, least = -np.log(1 - lifetime.within), -1, np.inf
    for i in np.flatnonzero(ranking.comparable):
        if serving.batch[i] < LEAST_BATCH:
            continue
        beyond = max(ranking.log_excess[i] - allowed, 0.0)
        value = ranking.log_excess[i] + np.log(lifetime.cost[i]) + STEEP * beyond
        if value < least:
            best, least = int(i), value
    assert ranking.best == best == lifetime.knee
    assert best in lifetime.frontier
    assert ranking.score[best] == pytest.approx(least)


@pytest.mark.parametrize("limit", ["max_params", "max_active", "max_memory", "max_price", "min_tokens_per_total"])
def test_a_limit_that_the_choice_meets_moves_neither_it_nor_any_excess(ranking: Ranking, limit: str) -> None:
    """Each limit leaves out better designs (or worse ones), and is met by the choice with a hair to spare."""
    active, total = sizes(ranking, ranking.best)
    assert ranking.serving is not None
    value = {
        "max_params": total, "max_active": active, "max_memory": total * 2.2,
        "max_price": float(ranking.serving.cost_per_million_tokens[ranking.best]),
        "min_tokens_per_total": float(ranking.feasible.tokens[ranking.best]) / total / 1.002**2,
    }[limit] * 1.002  # fmt: skip
    fields: dict[str, Any] = {limit: value}
    if limit == "max_price":
        fields = {"serving": {"hardware": "h100", "tokens": 1e13, "max_price": value}}
    limited = ranked(budget(**fields))
    assert len(limited.feasible) < len(ranking.feasible)
    assert sizes(limited, limited.best) == (active, total)
    assert limited.log_excess[limited.best] == pytest.approx(ranking.log_excess[ranking.best], abs=1e-9)
    assert limited.lifetime is not None
    assert ranking.lifetime is not None
    assert limited.lifetime.within == ranking.lifetime.within


def test_the_excess_is_over_compute_and_data_alone(ranking: Ranking) -> None:
    asked = budget(max_params=3e9)
    alone = reference_budget(asked)
    assert (alone.max_params, alone.serving, alone.flops, alone.objective) == (None, None, 1e21, "loss")
    reference = ranked(alone)
    limited = ranked(asked)
    assert limited.lifetime is not None
    assert limited.lifetime.within == unresolved(reference)[0]
    excess = with_granularity(reference, float(reference.log_excess.min()))
    same = {sizes(reference, i): excess[i] - excess.min() for i in range(len(reference.feasible))}
    near = [i for i in limited.lifetime.frontier if limited.log_excess[i] < FAR]
    assert near
    for i in near:
        assert limited.log_excess[i] == pytest.approx(same[sizes(limited, int(i))], abs=1e-9)


def test_the_more_tokens_are_served_the_cheaper_the_choice_is_to_serve() -> None:
    found = [ranked(budget(tokens)) for tokens in (1e8, 1e11, 1e12, 1e13, 1e16)]
    price = [float(r.serving.cost_per_million_tokens[r.best]) for r in found if r.serving is not None]
    excess = [float(r.log_excess[r.best]) for r in found]
    assert price == sorted(price, reverse=True)
    assert excess == sorted(excess)
    assert len(set(price)) > 2
    first = ranked(budget(1e6, mfu=0.4))  # training costs the same for all designs
    assert first.serving is not None
    usable = first.comparable & (first.serving.batch >= LEAST_BATCH)
    assert first.log_excess[first.best] == pytest.approx(first.log_excess[usable].min(), abs=1e-3)


def test_an_excess_that_is_stated_is_a_limit_and_one_of_the_laws_is_soft(ranking: Ranking) -> None:
    assert ranking.lifetime is not None
    stated = ranked(budget(within=0.05))
    assert stated.lifetime is not None
    assert stated.lifetime.decides
    assert stated.log_excess[stated.best] <= -np.log(1 - 0.05)
    beyond = stated.log_excess > -np.log(1 - 0.05)
    assert beyond.any()
    assert stated.score[beyond & np.isfinite(stated.score)].min() > OUTSIDE / 2
    wide = ranked(budget(within=0.9))
    assert wide.lifetime is not None
    assert not wide.lifetime.decides
    assert wide.log_excess[wide.best] >= ranking.log_excess[ranking.best]


def test_the_other_kind_is_the_least_loss_that_costs_no_more_over_its_life() -> None:
    found = plan(budget(), LAWS, SPACE)
    best, dense = found.best, found.best_dense
    assert best.is_moe
    assert dense is not None
    assert best.cost is not None
    assert dense.cost is not None
    assert dense.cost["lifetime"] <= best.cost["lifetime"]
    whole = ranked(budget())
    assert whole.lifetime is not None
    cheap = ~whole.feasible.lattice.is_moe & (whole.lifetime.cost <= best.cost["lifetime"]) & whole.comparable
    assert dense.regret_compute.value == pytest.approx(1 - np.exp(-whole.log_excess[cheap].min()))
    assert any("costs no more over its life" in line for line in why(found))


def test_a_stated_excess_that_no_design_has_is_refused_with_the_nearest_value() -> None:
    with pytest.raises(InputError, match=r"^within 0\.001: .* the nearest feasible value is 0\.\d+$") as refused:
        ranked(budget(within=0.001, max_params=8e9))
    nearest = float(str(refused.value).rsplit(" ", 1)[1])
    found = plan(budget(within=nearest, max_params=8e9), LAWS, SPACE)
    assert found.lifetime is not None
    assert found.lifetime["recommended"]["excess_compute"] <= nearest
    allowed = -np.log(1 - nearest)
    assert all(one.regret_compute.value <= 1 - np.exp(-allowed) for one in found.candidates)


def test_limits_that_leave_nothing_within_the_excess_decide() -> None:
    found = plan(budget(max_params=4e8), LAWS, SPACE)
    assert found.lifetime is not None
    assert found.lifetime["recommended"]["excess_compute"] > found.lifetime["within"]
    assert not found.lifetime["within_decides"]
    assert not found.lifetime["within_attainable"]
    assert "within" not in found.binding
    assert "No design within the limits is within the" in knee_sentence(found)


def test_what_decides_is_named_with_its_source_and_its_excess_is_the_tables() -> None:
    found = plan(budget(), LAWS, SPACE)
    assert found.lifetime is not None
    here = found.lifetime["recommended"]["excess_compute"]
    assert found.best.regret_compute.value == pytest.approx(here)
    assert f"{here:.0%} excess compute over" in knee_sentence(found)
    assert found.lifetime["within_source"] == "times"
    assert ("within" in found.binding) == found.lifetime["within_decides"]
    asked = plan(budget(within=0.05), LAWS, SPACE)
    assert asked.lifetime is not None
    assert asked.lifetime["within_source"] == "stated"
    assert "5% of excess compute that is allowed (as asked" in knee_sentence(asked)


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("serving_memory", {}),
        ("params", {"max_params": 5e9}),
        ("params", {"max_params": 1e9}),
        ("active", {"max_active": 1e12}),
    ],
)
def test_the_gain_of_a_limit_is_what_the_recommended_design_gains(name: str, fields: dict[str, Any]) -> None:
    """The dumb way: the whole search under the raised limit, over the same reference."""
    asked = budget(**fields)
    found = plan(asked, LAWS, SPACE)
    here = ranked(asked)
    assert here.lifetime is not None
    raised = search(
        enumerate_designs(SPACE), wider(asked, name, 1.1), predictors_of(laws_of(LAWS)), here.lifetime.reference
    )
    saved = here.score[here.best] - raised.score[raised.best]
    attainable = here.lifetime.most <= -np.log1p(-here.lifetime.within) + 1e-9
    if not attainable:
        saved = here.log_excess[here.best] - raised.log_excess[raised.best]
    assert found.sensitivity[name]["gain_compute"] == pytest.approx(np.expm1(max(0.0, saved)), abs=1e-9)
    balance = pytest.approx(-np.expm1(-max(0.0, saved)), abs=1e-9) if attainable else None
    assert found.sensitivity[name].get("gain_balance") == balance
    assert (name in found.binding) == (saved > 1e-4)


def test_the_frontier_is_whole_up_to_its_most_and_keeps_its_useful_half(ranking: Ranking) -> None:
    assert ranking.lifetime is not None
    front = ranking.lifetime.frontier.tolist()
    assert [row["index"] for row in frontier_rows(ranking)] == front
    some = [row["index"] for row in frontier_rows(ranking, most=8)]
    assert some[-4:] == front[-4:]
    assert some[0] == front[0]
    assert ranking.lifetime.knee in some
    assert len(some) <= 9


def test_a_knee_that_is_settled_a_little_beyond_the_excess_allowed_is_not_called_unattainable() -> None:
    """Near-equal designs may lie beyond what is allowed; the limits have not decided then."""
    found = plan(budget(), LAWS, SPACE)
    assert found.lifetime is not None
    found.lifetime.update(within_decides=False, within_attainable=True)
    found.lifetime["recommended"] = found.lifetime["recommended"] | {"excess_compute": found.lifetime["within"] + 0.03}
    text = knee_sentence(found)
    assert text.startswith("Design 1 is at the knee")
    assert "cannot distinguish it from designs with less" in text


def test_devices_that_cost_nothing_leave_the_choice_to_the_loss() -> None:
    asked = Budget.parse({"flops": 1e21, "serving": {"hardware": "h100", "tokens": 1e12, "gpu_price": 0}})
    found = ranked(asked)
    assert found.serving is not None
    usable = found.comparable & (found.serving.batch >= LEAST_BATCH)
    assert found.log_excess[found.best] == pytest.approx(found.log_excess[usable].min())
    assert found.lifetime is not None
    assert not found.lifetime.decides
    best = plan(asked, LAWS, SPACE).best
    assert best.cost is not None
    assert best.cost["lifetime"] == 0


@pytest.mark.parametrize(("tpot", "few"), [("150ms", False), ("40ms", True)])
def test_few_requests_are_taken_where_designs_of_many_are_far_behind(tpot: str, few: bool) -> None:
    """Long prompts under a tight limit leave few requests to every good model; a tiny model serves many, and loses."""
    traffic = {"prompt": 120_000, "output": 200, "tpot": tpot, "precision": "fp8"}
    found = ranked(budget(serving={"hardware": "h100", "tokens": 1e12, "traffic": traffic}, mfu=0.4))
    assert found.serving is not None
    batch = found.serving.batch
    assert (batch[found.best] < LEAST_BATCH) == few
    assert (found.log_excess[found.best] < found.log_excess[batch >= LEAST_BATCH].min()) == few
