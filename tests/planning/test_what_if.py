"""What changes the answer: each change is the plan with that change, and the same design shows what its loss does."""

import pytest

from moelab.laws import effective_tokens, get_law
from moelab.laws.design import Design
from moelab.laws.reuse import R_D
from moelab.planning import Budget, Space
from moelab.planning.cells import what_if_cells
from moelab.planning.plan import plan
from moelab.planning.result import Plan
from moelab.planning.what_if import REUSE


def test_what_if_halves_and_doubles_every_limit_and_asks_each_law(inside: Plan) -> None:
    changes = [row["change"] for row in inside.what_if]
    assert sorted(changes) == [
        "abnar2025 alone", "half the compute", "half the limit on parameters", "ludziejewski2025 alone",
        "twice the compute", "twice the limit on parameters",
    ]  # fmt: skip
    by_change = {row["change"]: row for row in inside.what_if}
    assert by_change["twice the compute"]["tokens"] > by_change["half the compute"]["tokens"]
    assert by_change["half the limit on parameters"]["params_total"] <= 2.5e9


def test_a_what_if_equals_the_plan_of_that_budget(inside: Plan, coarse: Space) -> None:
    """The space is small enough to be searched whole."""
    again = plan(Budget(flops=2e20, max_params=5e9), ["ludziejewski2025", "abnar2025"], coarse).best
    row = next(row for row in inside.what_if if row["change"] == "twice the compute")
    assert (row["experts"], row["params_total"], row["tokens"]) == (
        again.experts, again.params_total, pytest.approx(again.tokens, rel=1e-6)
    )  # fmt: skip


def test_an_infeasible_what_if_gives_its_reason(inside: Plan, coarse: Space) -> None:
    found = plan(Budget(flops=1e20, max_params=0.4e9), ["ludziejewski2025"], coarse.replace(d_model=[1024]))
    row = next(row for row in found.what_if if row["change"] == "half the limit on parameters")
    assert "no design fits" in row["why_not"]
    assert what_if_cells(row)[-1] == row["why_not"]
    assert what_if_cells({"change": "x", "changes": False})[1] == "same design"
    costlier = what_if_cells({"change": "ten times the served tokens", "changes": False, "cost": 2e6})
    assert (costlier[1], costlier[-1]) == ("same design", "$2.00M")


def test_a_what_if_of_the_same_design_shows_what_its_loss_changes_by(tiny: Space) -> None:
    """Less data, and repeated tokens that are worth less, cost loss on the same design too."""
    law = get_law("ludziejewski2025")
    few = tiny.replace(
        n_experts=(8,), top_k=(1,), d_model=(64,), n_layers=(3,), head_dim=(16,), n_shared_experts=(0,),
        n_dense_layers=(0,), kinds=("moe",),
    )  # fmt: skip
    found = plan(Budget(flops=3e12, unique_tokens=1e6, max_epochs=50), [law], few, extrapolate=True)
    rows = {row["change"]: row for row in found.what_if}

    def loss(unique: float, r_d: float) -> float:
        """Of design 1, with repeated tokens put as effective new ones into the law's own formula."""
        worth = effective_tokens(found.best.tokens, unique, r_d)
        read = law.read(Design.of(found.best.config, found.best.tokens, tiny.seq_len), published=True).variables
        return float(law.loss(law.published, {**read, "tokens": worth}))

    own = loss(1e6, R_D)
    changed = {"half the data": loss(5e5, R_D), "twice the data": loss(2e6, R_D), REUSE: loss(1e6, R_D / 3)}
    for change, expected in changed.items():
        row, more = rows[change], expected - own
        assert not row["changes"]
        assert row["extra_nats"] == pytest.approx(more, rel=1e-6)
        assert what_if_cells(row) == (change, "same design", "", "", f"{more:+.3f}", "")
    assert rows["twice the data"]["extra_nats"] < -0.001 < 0.001 < rows["half the data"]["extra_nats"]
    assert what_if_cells({"change": "x", "changes": False, "extra_nats": -1e-9})[4] == "0.000"
