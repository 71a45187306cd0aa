"""The contest of laws: no cell's prior knows the paper under test, and its scores are what they are called."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from moelab.fitting.objective import Objective
from moelab.fitting.observations import observations
from moelab.fitting.prior import shipped
from moelab.fitting.prior_fit import fit_with_prior
from moelab.laws import get_law

ROOT = Path(__file__).parents[1]
OURS = ROOT / "results" / "reference"


@pytest.fixture(scope="module")
def holdout() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        import holdout as module
    yield module
    for name in ("holdout", "prior_tables"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize(
    "table", ["clark2022 S-Base", "clark2022 other k and frequencies", "muennighoff2023", "reference"]
)
def test_no_source_is_of_the_paper_under_test(holdout, published_runs: Path, table: str) -> None:
    every = holdout.run_tables(published_runs, OURS)
    group = every[table][0]
    found = holdout.tables(published_runs, OURS, without=holdout.excluded(group))
    assert found
    assert all(group != source.group and group not in source.name for source in found)
    own = {tuple(np.round(each[2]["loss"].to_numpy(), 9)) for name, each in every.items() if each[0] == group}
    assert not own & {tuple(np.round(source.data.measured, 9)) for source in found}
    laws = holdout.foreign(holdout.laws_for(holdout.prepared(every[table][2])), table)
    assert laws
    assert all(not law.id.startswith(group) for law in laws)
    assert group != "muennighoff2023" or all(not law.id.endswith("+reuse") for law in laws)


def test_our_own_runs_enter_only_priors_of_other_tables(holdout, published_runs: Path) -> None:
    """Not one loss of our records is in a source of the cells of the reference table."""
    ours = np.round(holdout.run_tables(published_runs, OURS)["reference"][2]["loss"].to_numpy(), 9)
    assert len(ours) > 100
    every = {source.name: source for source in holdout.tables(published_runs, OURS)}
    assert np.isin(np.round(every["reference"].data.measured, 9), ours).all()
    left = holdout.tables(published_runs, OURS, without=holdout.excluded("reference"))
    assert {source.name for source in left} == set(every) - {"reference"}
    assert all(not np.isin(np.round(source.data.measured, 9), ours).any() for source in left)
    assert all("reference" not in str(source.record) for source in left)


def test_no_published_table_lies_far_from_the_prior(holdout, published_runs: Path) -> None:
    law, prior = get_law("moelab2026"), shipped("moelab2026")
    assert prior is not None
    for group, _, rows in holdout.run_tables(published_runs).values():
        rows = rows.filter((pl.col("params_active") < holdout.LARGEST) | (group != "clark2022")).sort("train_flops")
        for some in (rows.head(30), rows):
            data, objective = observations(some, law), Objective.parse("huber:1e-3")
            fitted = fit_with_prior(data, law, prior.of(law), objective, {}, 0)
            assert not any("farther from the prior" in note for note in fitted.notes)


def test_clarks_largest_runs_enter_no_prior(holdout, published_runs: Path) -> None:
    for source in holdout.tables(published_runs):
        if source.group == "clark2022":
            assert source.data.variables["params_active"].max() < 1e9


def test_regret_is_the_loss_of_the_choice_over_the_best(holdout) -> None:
    rest = pl.DataFrame({"train_flops": [1.0, 1.01, 1.02, 2.0, 2.0, 2.0], "loss": [3.0, 2.0, 4.0, 1.0, 2.0, 3.0]})
    assert holdout.regret(np.array([1.0, 2.0, 3.0, 1.0, 2.0, 3.0]), rest) == pytest.approx((0.5 + 0) / 2)
    assert holdout.regret(np.array([2.0, 1.0, 3.0, 1.0, 2.0, 3.0]), rest) == 0
    assert holdout.regret(np.array([1.0]), rest.head(1)) is None


def test_the_goal_needs_a_small_gap_that_may_be_none(holdout) -> None:
    def cell(ours: np.ndarray, theirs: np.ndarray) -> Any:
        made = holdout.Cell("table", 15, 15)
        for name, errors in (("moelab2026", ours), ("wang2024", theirs)):
            made.scores[name] = holdout.Score("", None, errors, np.ones(len(errors), bool), None)
        return made

    noise = np.random.default_rng(0).normal(0, 0.01, 50)
    assert cell(noise, noise * 2).holds()
    assert not cell(noise * 1.2, noise).holds()  # beyond 10 %
    assert not cell(noise * 1.05, noise).holds()  # within 10 %, and always larger
    assert cell(noise * 1.0, noise[::-1]).holds()  # equal on average
