"""Loss against lifetime cost: the frontier by brute force, and the tokens that pay for a smaller model."""

from typing import Any

import numpy as np
import pytest

from moelab.errors import InputError
from moelab.planning import Budget, Space
from moelab.planning.chosen_laws import laws_of
from moelab.planning.given_laws import predictors_of
from moelab.planning.granularity import granularity_excess, mean_excess
from moelab.planning.lattice import enumerate_designs
from moelab.planning.lifetime import dollars_per_millinat, extra_nats, frontier_rows, implied_tokens, point_of
from moelab.planning.lower_loss import no_more_expensive
from moelab.planning.plan import plan
from moelab.planning.ranking import Ranking
from moelab.planning.search import search
from moelab.planning.tradeoff import frontier
from moelab.planning.why import why
from moelab.planning.why_balance import NOT_TAKEN

SPACE = Space(
    d_model=(1024, 1536, 2048, 3072), n_layers=(12, 16, 24, 32), head_dim=(128,), heads_per_kv=(4,), ffn_ratio=(4,),
    n_experts=(16, 64), top_k=(1, 4), n_shared_experts=(0,), n_dense_layers=(0,), vocab_size=32000,
)  # fmt: skip


def budget(**more: Any) -> Budget:
    return Budget.parse({"flops": 1e21, "serving": {"hardware": "h100", "tokens": 1e13}, **more})


@pytest.fixture(scope="module")
def ranking() -> Ranking:
    return search(enumerate_designs(SPACE), budget(), predictors_of(laws_of(["ludziejewski2025", "abnar2025"])))


def test_the_frontier_equals_brute_force() -> None:
    rng = np.random.default_rng(0)
    excess, cost = rng.integers(0, 12, 200) / 10, rng.integers(1, 15, 200) * 1.0
    excess[:3] = np.inf
    found = frontier(excess, cost)
    points = {(c, e) for c, e in zip(cost, excess, strict=True) if np.isfinite(e)}
    undominated = {p for p in points if not any(q[0] <= p[0] and q[1] <= p[1] and q != p for q in points)}
    assert {(cost[i], excess[i]) for i in found} == undominated
    assert len(found) == len(undominated)
    assert (np.diff(cost[found]) > 0).all()
    assert (np.diff(excess[found]) < 0).all()


def test_the_plans_frontier_is_complete(ranking: Ranking) -> None:
    """No ranked design is cheaper at no more excess than a design of the frontier."""
    assert ranking.lifetime is not None
    cost, excess = ranking.lifetime.cost, np.where(ranking.comparable, ranking.log_excess, np.inf)
    for i in ranking.lifetime.frontier:
        assert not ((cost <= cost[i]) & (excess <= excess[i]) & ((cost < cost[i]) | (excess < excess[i]))).any()


def test_a_wider_limit_gives_a_cheaper_design() -> None:
    laws = ["ludziejewski2025"]
    narrow, wide = (plan(budget(within=within), laws, SPACE).best for within in (0.02, 0.5))
    assert narrow.cost is not None
    assert wide.cost is not None
    assert wide.cost["lifetime"] < narrow.cost["lifetime"]
    assert wide.regret_compute.value > narrow.regret_compute.value


def test_balance_is_the_default_where_tokens_are_served() -> None:
    assert budget().objective == "balance"
    assert budget(objective="loss").objective == "loss"
    assert Budget(flops=1e21).objective == "loss"
    assert budget(target_loss=2.0, objective="lifetime-cost").objective == "lifetime-cost"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"flops": 1e21, "within": 0.1}, "within: needs the objective balance"),
        ({"flops": 1e21, "objective": "balance"}, "objective: balance needs serving hardware"),
        (
            {"flops": 1e21, "objective": "balance", "serving": {"hardware": "h100"}},
            "objective: balance needs the tokens that will be served",
        ),
        ({"flops": 1e21, "within": 1.5, "serving": {"hardware": "h100", "tokens": 1e12}}, "within: "),
    ],
)
def test_a_balance_needs_tokens_to_serve(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Budget.parse(fields)


def test_rows_of_the_frontier_rise_in_cost_and_fall_in_loss(ranking: Ranking) -> None:
    rows = frontier_rows(ranking)
    assert [row["knee"] for row in rows].count(True) == 1
    assert [row["lifetime"] for row in rows] == sorted(row["lifetime"] for row in rows)
    assert rows[-1]["extra_nats"] == pytest.approx(0)
    nats = [row["extra_nats"] for row in rows]
    assert nats == sorted(nats, reverse=True)
    assert len(set(nats)) == len(nats)  # neither end is clipped
    assert point_of(ranking, ranking.best) == next(row for row in rows if row["knee"])
    assert all(row["lifetime"] == pytest.approx(row["train"] + row["serve"]) for row in rows)


def test_implied_tokens_make_both_ways_to_the_loss_cost_the_same(ranking: Ranking) -> None:
    """At that many served tokens, the design costs what the training optimum of equal loss costs."""
    assert ranking.lifetime is not None
    front = ranking.lifetime.frontier
    assert implied_tokens(ranking, budget(), int(front[-1])) == 0
    tokens = [implied_tokens(ranking, budget(), int(i)) for i in front]
    known = [value for value in tokens if value is not None]
    assert len(known) > len(front) / 2
    assert all(value >= 0 for value in known)
    assert max(known) > 0


def test_the_plan_gives_dollars_by_loss() -> None:
    found = plan(budget(), ["ludziejewski2025"], SPACE)
    assert found.lifetime is not None
    assert found.lifetime["per_millinat"]["higher_loss_saves"] > 0
    assert found.lifetime["per_millinat"]["by_training"] > 0
    rows = found.nearest_released
    assert len(rows) == 3
    assert all(row["params_total"] > 0 and row["tokens"] > 0 for row in rows)
    plain = found.to_dict()
    assert plain["implied_lifetime_tokens"] == found.lifetime["implied_lifetime_tokens"]
    assert sum(row["knee"] for row in plain["lifetime"]["frontier"]) == 1


def test_extra_nats_of_one_law_are_its_loss_and_what_granularity_costs_above_the_base() -> None:
    alone = search(enumerate_designs(SPACE), budget(), predictors_of(laws_of(["ludziejewski2025"])))
    losses, curve, index = alone.mean(alone.ensemble[0]), alone.curves[0], alone.order[:5]
    fine = mean_excess(list(granularity_excess(alone.feasible.design).values()))
    assert fine[index].max() > 0
    excess = curve.log_excess(losses[index]) + fine[index]
    least = excess - alone.log_excess[index]  # of all designs under compute and data alone
    assert least == pytest.approx(least[0])
    own = curve.loss_behind(excess - least[0])
    assert extra_nats(alone, index, int(index[0])) == pytest.approx(own - own[0])


def test_a_lower_loss_that_costs_no_more_is_named_with_the_reason_and_never_costs_nothing(ranking: Ranking) -> None:
    """A dumb loop over the frontier finds the same design; no sentence puts a price of $0 on a lower loss."""
    assert ranking.lifetime is not None
    cost, front = ranking.lifetime.cost, ranking.lifetime.frontier
    nats = extra_nats(ranking, np.arange(len(cost)), int(front[-1]))
    seen = 0
    for chosen in ranking.order[:: max(1, len(ranking.order) // 40)]:
        found = no_more_expensive(ranking, int(chosen), [])
        better = [i for i in front if nats[i] <= nats[chosen] - 0.001 and cost[i] <= cost[chosen]]
        assert (found is None) == (not better)
        if found is not None:
            seen += 1
            assert found["index"] == min(better, key=lambda i: nats[i])
            assert found["not_taken"] in NOT_TAKEN
            prices = dollars_per_millinat(ranking, budget(), int(chosen))
            assert prices["lower_loss_costs"] is None or prices["lower_loss_costs"] <= 0
            assert prices["off_frontier"] is None or prices["off_frontier"] > 0
    assert seen > 0


def test_a_bend_of_the_frontier_is_named_with_the_price_over_a_larger_step(ranking: Ranking) -> None:
    """A dumb interpolation gives the average over 0.01 nats; prices that differ by a factor of 10 need the sentence."""
    assert ranking.lifetime is not None
    front, cost = ranking.lifetime.frontier, ranking.lifetime.cost
    nats = extra_nats(ranking, front, int(front[-1]))
    chosen = int(front[len(front) // 2])
    here = float(extra_nats(ranking, np.array([chosen]), int(front[-1]))[0])
    found = dollars_per_millinat(ranking, budget(), chosen)["higher_by_ten_saves"]
    order = np.argsort(nats)
    expected = (cost[chosen] - np.interp(here + 0.01, nats[order], cost[front][order])) / 10
    assert found == pytest.approx(expected)
    shown = plan(budget(), ["ludziejewski2025"], SPACE)
    assert shown.lifetime is not None
    shown.lifetime["lower_loss_at_no_more_cost"] = None
    prices = {"lower_loss_costs": 1.6e6, "off_frontier": 0.0, "by_training": None, "higher_by_ten_saves": 2.6e5}
    for saved, bent in ((9e3, True), (9e5, False)):
        shown.lifetime["per_millinat"] = {**prices, "higher_loss_saves": saved}
        text = " ".join(why(shown))
        assert ("a loss higher by 0.01 nats saves $260K per 0.001." in text) is bent
        assert ("The frontier has a bend or a gap here" in text) is bent
    for ten, bent in ((2.6e5, True), (2.4e4, False)):  # a step down the frontier, with no design of lower loss
        shown.lifetime["per_millinat"] = {**prices, "lower_loss_costs": None, "higher_loss_saves": 9e3}
        shown.lifetime["per_millinat"]["higher_by_ten_saves"] = ten
        assert ("The frontier has a bend or a gap here" in " ".join(why(shown))) is bent


def test_the_sentence_on_a_lower_loss_at_no_more_cost() -> None:
    found = plan(budget(), ["ludziejewski2025"], SPACE)
    assert found.lifetime is not None
    lower = {"design": "4.6B of 65B, 160 top-6+2", "lifetime": 5e5, "nats": 0.004, "not_taken": "practice"}
    found.lifetime["lower_loss_at_no_more_cost"] = lower
    found.lifetime["per_millinat"] = {
        "lower_loss_costs": -2e4, "higher_loss_saves": 3e4, "off_frontier": 2.5e4, "by_training": None
    }  # fmt: skip
    text = " ".join(why(found))
    assert "A loss lower by 0.004 nats costs no more over the model's life: 4.6B of 65B, 160 top-6+2 at $500K" in text
    assert "the experts of released models settled against it" in text
    assert "The frontier reaches this design's own loss for $25.0K less" in text
    assert "$0" not in text
    assert "saves" not in text
