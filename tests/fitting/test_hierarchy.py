"""The prior of a law from many tables recovers the population that the tables were drawn from."""

import numpy as np
import pytest

from moelab.fitting.hierarchy import Table, anchors, build_prior
from moelab.fitting.observations import observations
from moelab.fitting.prior import to_coefficients
from moelab.laws import get_law

LAW = get_law("moelab2026")
NAMES = list(LAW.coefficients)


def table(number: int, rows: int = 40) -> Table:
    """Runs of a law of the population: kappa_0 0.4 +- 0.05, floor and scales of their own, the rest at the centre."""
    rng = np.random.default_rng(number)
    theta = anchors(LAW)[0].copy()
    theta[NAMES.index("kappa_0")] = 0.4 + 0.05 * rng.standard_normal()
    theta[NAMES.index("E_0")] += 0.3 * rng.standard_normal()
    theta[NAMES.index("A")] += 0.3 * rng.standard_normal()
    runs = {
        "params_active": np.exp(rng.uniform(np.log(1e7), np.log(1e9), rows)),
        "tokens": np.exp(rng.uniform(np.log(1e9), np.log(1e11), rows)),
        "expert_ratio": rng.choice([1.0, 4.0, 16.0, 64.0], rows),
    }
    loss = LAW.loss(to_coefficients(LAW, theta[None]), runs)[0] * np.exp(0.002 * rng.standard_normal(rows))
    return Table(f"t{number}", f"g{number}", observations({**runs, "loss": loss}, LAW), {"kind": "made here"})


@pytest.fixture(scope="module")
def tables() -> list[Table]:
    return [table(number) for number in range(5)]


@pytest.fixture(scope="module")
def found(tables):
    return build_prior(LAW, tables, "five tables", rounds=8)


def test_the_population_is_recovered(found) -> None:
    at = NAMES.index("kappa_0")
    assert found.mean[at] == pytest.approx(0.4, abs=0.08)
    spread = np.sqrt(np.diag(found.covariance))
    before = anchors(LAW)[1]
    assert spread[at] < 0.5 * before[at]
    assert spread[NAMES.index("R_D")] > 0.5 * before[NAMES.index("R_D")]  # nothing is repeated: not learnt
    assert spread[NAMES.index("E_0")] > 0.1  # floors differ between tables
    assert 0.001 < found.noise[0] < 0.005


def test_it_is_the_same_each_time_and_names_its_sources(tables, found) -> None:
    once, again = (build_prior(LAW, tables[:3], "three", rounds=1) for _ in range(2))
    assert once.sha256 == again.sha256
    assert build_prior(LAW, tables[:2], "three", rounds=1).sha256 != once.sha256
    assert [source["name"] for source in found.sources] == [f"t{k}" for k in range(5)]
