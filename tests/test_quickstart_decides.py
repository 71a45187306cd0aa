"""Simulated quickstarts: the noise of the measured runs, and a decision that is the study's own."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from moelab.errors import InputError
from moelab.fitting.fit import fit
from moelab.studies import load_study
from moelab.studies.build import preview

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def module() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        import quickstart_decides as found
    yield found
    sys.modules.pop("quickstart_decides", None)


def test_the_measured_runs_are_those_of_the_study(module) -> None:
    rows = pl.read_csv(module.MEASURED)
    study = load_study("quickstart")
    assert len(rows.filter(pl.col("role") == "")) == len(preview(study)["runs"])
    assert study.verify is not None
    assert sorted(role for role in rows["role"] if role) == ["best_dense"] * 2 + ["recommended"] * 2
    assert study.verify.seeds == [0, 1]
    assert [len(losses) for losses in module.repeated(rows)] == [2, 2, 2, 2]


def test_the_noise_is_pooled_within_designs(module) -> None:
    noise = module.pooled([np.array([3.0, 3.2]), np.array([2.0, 2.0, 2.3]), np.array([9.0])])
    assert noise.freedom == 3
    assert noise.deviation == pytest.approx(np.sqrt((0.02 + 0.06) / 3))
    with pytest.raises(InputError, match="no run was repeated"):
        module.pooled([np.array([1.0])])


def test_the_table_counts_what_was_decided_and_rightly(module) -> None:
    way = module.WAYS[0]
    kinds = ((True, True), (True, False), (False, True), (True, True))
    results = [module.Result(decided=decided, right=right, excess=0.02) for decided, right in kinds]
    found = module.table([dict.fromkeys(module.WAYS, result) for result in results])[way.name]
    assert found == {"decided": 0.75, "right": pytest.approx(2 / 3), "excess": pytest.approx(0.02)}


@pytest.mark.slow
def test_two_quickstarts_are_the_same_each_time_and_see_the_same_noise(module) -> None:
    rows = pl.read_csv(module.MEASURED).filter(pl.col("role") == "")
    truth = fit(rows, "moelab2026", bootstrap=0)
    simulation = module.Simulation(load_study("quickstart"), rows, truth, 0.005)
    first, again = simulation.quickstart(1), simulation.quickstart(1)
    assert first == again
    assert all(result.excess >= -1e-9 for result in first.values())
    still = module.Simulation(load_study("quickstart"), rows, truth, 1e-6)
    assert all(result.decided and result.right for result in still.quickstart(0).values())
