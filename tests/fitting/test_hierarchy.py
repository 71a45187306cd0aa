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


def test_a_table_may_inform_some_coefficients_alone(tables, found) -> None:
    small = {
        "params_active": np.geomspace(3e4, 5e5, 40),
        "tokens": np.tile(np.geomspace(2e5, 1e7, 8), 5),
        "expert_ratio": np.tile([1.0, 8.0], 20),
        "shared_share": np.tile([0.0, 0.5, 0.25, 0.125], 10),
    }
    theta = anchors(LAW)[0].copy()
    theta[NAMES.index("sigma_1")], theta[NAMES.index("kappa_0")], theta[NAMES.index("E_0")] = 0.4, 0.9, 1.0
    loss = LAW.loss(to_coefficients(LAW, theta[None]), small)[0]
    noisy = loss * np.exp(0.002 * np.random.default_rng(9).standard_normal(40))
    ours = Table("ours", "ours", observations({**small, "loss": noisy}, LAW), {}, only=("sigma_1", "sigma_2"))
    with_it = build_prior(LAW, [*tables, ours], "six tables", rounds=8)
    at, others = NAMES.index("sigma_1"), [k for k, name in enumerate(NAMES) if name not in ours.only]
    assert np.array_equal(with_it.mean[others], found.mean[others])
    assert np.array_equal(np.diag(with_it.covariance)[others], np.diag(found.covariance)[others])
    assert with_it.mean[at] == pytest.approx(0.4, abs=0.25)
    assert with_it.covariance[at, at] < 0.5 * found.covariance[at, at]
    assert 0 <= found.drift[0] < 0.01  # every table is of the law
    assert with_it.sources[-1]["name"] == "ours"
