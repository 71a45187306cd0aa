"""A plan across a law's floor: a row per end for a fit with a prior, each the plan of such a law."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import moelab
from moelab.fitting import save_fits
from moelab.fitting.observations import observations
from moelab.fitting.prior import shipped, to_coefficients
from moelab.laws import get_law
from moelab.planning import Budget, Space
from moelab.planning.changed import law_of_floor
from moelab.planning.given_laws import predictors_of
from moelab.planning.plan import plan

LAW = get_law("moelab2026")
SPACE = Space(
    d_model=(256, 512, 1024), n_layers=(8, 12, 16), head_dim=(64,), heads_per_kv=(4,), ffn_ratio=(4,),
    n_experts=(8, 32), top_k=(1, 2), n_shared_experts=(0,), n_dense_layers=(0,), vocab_size=32000,
)  # fmt: skip
BUDGET = Budget(flops=3e19, max_params=3e9)


@pytest.fixture(scope="module")
def fitted():
    """A fit with the shipped prior to fourteen small runs, whose floor it leaves open."""
    known = shipped("moelab2026")
    assert known is not None
    rng = np.random.default_rng(2)
    table = {
        "params_active": np.geomspace(1e7, 2e8, 14),
        "tokens": np.geomspace(1e9, 1e10, 14)[rng.permutation(14)],
        "n_experts": np.tile([1.0, 8.0], 7),
        "top_k": np.ones(14),
    }
    variables = observations({**table, "loss": np.linspace(3, 4, 14)}, LAW).variables
    loss = LAW.loss(to_coefficients(LAW, known.of(LAW).mean[None]), variables)[0]
    return moelab.fit({**table, "loss": loss * np.exp(0.004 * rng.standard_normal(14))}, LAW, bootstrap=60)


@pytest.fixture(scope="module")
def found(fitted, tmp_path_factory):
    place: Path = tmp_path_factory.mktemp("fit") / "fit.json"
    save_fits({LAW.id: fitted}, place)
    return moelab.plan(BUDGET, [str(place)], SPACE)


def test_a_fit_with_a_prior_has_a_row_per_end_of_its_floor(fitted, found) -> None:
    rows = [row for row in found.what_if if "floor at" in row["change"]]
    floors = np.sort(fitted.draws[:, LAW.coefficients.index("E_0")])
    assert [row["change"].split(" (")[0] for row in rows] == [
        "moelab2026 with its floor at p10", "moelab2026 with its floor at p90",
    ]  # fmt: skip
    low, high = (float(row["change"].split("(")[1].rstrip(")")) for row in rows)
    assert floors[0] <= low + 5e-4
    assert low <= floors[11] + 5e-4  # of 60 draws, the twelve lowest
    assert floors[-12] - 5e-4 <= high <= floors[-1] + 5e-4
    assert all(row["params_active"] > 0 and isinstance(row["changes"], bool) for row in rows)


def test_each_row_is_the_plan_of_that_draw(fitted, found) -> None:
    """The space is small enough to be searched whole."""
    rows = [row for row in found.what_if if "floor at" in row["change"]]
    for row, high in zip(rows, (False, True), strict=True):
        drawn = law_of_floor(predictors_of([fitted])[0], high)
        assert drawn is not None
        assert any(np.array_equal(list(drawn.values()), draw) for draw in fitted.draws)
        alone = replace(fitted, coefficients=drawn, draws=np.empty((0, len(LAW.coefficients))), prior=None)
        again = plan(BUDGET, [alone], SPACE).best
        assert (row["experts"], row["params_total"]) == (again.experts, again.params_total)
        assert row["tokens"] == pytest.approx(again.tokens, rel=1e-6)


def test_the_law_of_a_floor_is_a_dumb_loop(fitted) -> None:
    names = list(LAW.coefficients)
    part = fitted.draws[np.argsort(fitted.draws[:, names.index("E_0")], kind="stable")][:12]
    best, least = None, np.inf
    for draw in part:
        far = 0.0
        for k, name in enumerate(names):
            column = np.log(part[:, k]) if name in LAW.positive else part[:, k]
            value = np.log(draw[k]) if name in LAW.positive else draw[k]
            far += ((value - column.mean()) / column.std()) ** 2 if column.std() > 0 else 0.0
        if far < least:
            best, least = draw, far
    assert law_of_floor(predictors_of([fitted])[0], False) == dict(zip(names, best, strict=True))


def test_a_swept_floor_leaves_the_order_of_designs_as_it_is() -> None:
    """Why published laws have no such row: the loss at the middle of the runs stays, so all losses map by one line."""
    from moelab.fitting.floor import across_floor

    law = get_law("ludziejewski2025")
    rng = np.random.default_rng(0)
    designs = {
        "params_active": np.exp(rng.uniform(18, 22, 50)),
        "tokens": np.exp(rng.uniform(21, 25, 50)),
        "expert_ratio": rng.choice([1.0, 4.0, 16.0], 50),
    }
    parts = across_floor(law, {name: designs[name] for name in law.variables})
    assert len(parts) == 5
    orders = {tuple(np.argsort(part.losses, kind="stable")) for part in parts}
    assert len(orders) == 1
