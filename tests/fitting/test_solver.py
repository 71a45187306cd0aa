"""The batched solver against SciPy, objectives and parameters against plain arithmetic."""

import numpy as np
import pytest
from scipy.optimize import least_squares, minimize

from moelab.errors import InputError
from moelab.fitting.fit import fit
from moelab.fitting.objective import Objective
from moelab.fitting.observations import observations
from moelab.fitting.parameters import Parameters
from moelab.fitting.problem import Problem
from moelab.fitting.solver import minimise as minimise_batch
from moelab.laws import get_law


def noisy(law_id: str, variables_of, n: int = 60, noise: float = 0.005, seed: int = 1) -> dict[str, np.ndarray]:
    law = get_law(law_id)
    designs = variables_of(n, seed)
    table = {name: designs[name] for name in law.variables}
    rng = np.random.default_rng(seed)
    return {**table, law.kind: law.loss(None, table) * np.exp(noise * rng.standard_normal(n))}


def problem_of(law_id: str, table, objective: str) -> Problem:
    law = get_law(law_id)
    data = observations(table, law)
    return Problem(Parameters.of(law), data.variables, np.log(data.measured), Objective.parse(objective))


@pytest.mark.parametrize(
    "law_id",
    [
        "hoffmann2022",
        "krajewski2024",
        pytest.param("abnar2025", marks=pytest.mark.slow),
        "ludziejewski2025",
        "tian2025",
    ],
)
def test_no_worse_than_scipy_bfgs(law_id, variables_of) -> None:
    table = noisy(law_id, variables_of)
    ours = fit(table, law_id, bootstrap=0)
    problem = problem_of(law_id, table, "huber:1e-3")
    law = get_law(law_id)

    def value_and_slope(theta):
        r, jacobian = problem.linearise(theta[None])
        if not np.isfinite(r).all():
            return 1e10, np.zeros_like(theta)
        return problem.value(theta[None], np.ones((1, 60)))[0], -problem.objective.slope(r[0]) @ jacobian[0]

    start = problem.parameters.theta(law.published)[0]
    theirs = minimize(value_and_slope, start, jac=True, method="BFGS", options={"gtol": 1e-10, "maxiter": 3000})
    assert ours.objective <= theirs.fun * (1 + 1e-9)


@pytest.mark.parametrize("law_id", ["hoffmann2022", "krajewski2024"])
def test_squared_objective_equals_scipy_least_squares(law_id, variables_of) -> None:
    table = noisy(law_id, variables_of)
    ours = fit(table, law_id, objective="squared", bootstrap=0)
    problem = problem_of(law_id, table, "squared")
    start = problem.parameters.theta(get_law(law_id).published)[0]
    theirs = least_squares(
        lambda theta: problem.residuals(theta[None])[0], start, x_scale="jac", xtol=1e-14, ftol=1e-14
    )
    assert ours.objective == pytest.approx(theirs.cost, rel=1e-9)
    found = problem.parameters.coefficients(theirs.x[None])
    for name, value in ours.coefficients.items():
        assert value == pytest.approx(float(found[name][0, 0]), rel=1e-3)


def test_a_batch_equals_its_members(variables_of) -> None:
    problem = problem_of("hoffmann2022", noisy("hoffmann2022", variables_of), "huber:1e-3")
    rng = np.random.default_rng(0)
    weights = rng.multinomial(60, np.full(60, 1 / 60), size=6).astype(float)
    start = problem.parameters.theta(get_law("hoffmann2022").published)
    together = minimise_batch(problem, np.repeat(start, 6, axis=0), weights, steps=200)
    for i in range(6):
        alone = minimise_batch(problem, start, weights[i : i + 1], steps=200)
        assert alone.value[0] == pytest.approx(together.value[i], rel=1e-10)


@pytest.mark.parametrize("text", ["huber:1e-2", "squared", "floor:1e-2:0.2"])
def test_objectives_and_their_derivatives(text) -> None:
    objective = Objective.parse(text)
    r = np.array([-0.5, -0.011, -0.009, -1e-4, 2e-4, 0.009, 0.011, 0.7])
    step = 1e-7
    slope = (objective.penalty(r + step) - objective.penalty(r - step)) / (2 * step)
    assert np.allclose(objective.slope(r), slope, rtol=1e-6)
    curvature = (objective.slope(r + step) - objective.slope(r - step)) / (2 * step)
    assert np.allclose(objective.curvature(r), curvature, atol=1e-6)
    assert np.allclose(objective.majorizer(r) * r, objective.slope(r))
    assert Objective.parse(str(objective)) == objective


def test_the_floor_follows_the_best_runs(variables_of) -> None:
    table = noisy("hoffmann2022", variables_of, n=200, noise=0.0)
    rng = np.random.default_rng(3)
    badly_tuned = rng.random(200) < 0.5
    table["loss"] = table["loss"] * np.where(badly_tuned, 1 + 0.05 * rng.random(200), 1.0)
    truth = get_law("hoffmann2022").loss(None, table)
    plain = fit(table, "hoffmann2022", bootstrap=0, starts=2, objective="squared").predict(table).value / truth - 1
    floor = (
        fit(table, "hoffmann2022", bootstrap=0, starts=2, objective="floor:1e-3:0.05").predict(table).value / truth - 1
    )
    assert np.mean(np.abs(floor)) < 0.2 * np.mean(np.abs(plain))


@pytest.mark.parametrize("text", ["huber:0", "huber:a", "huber:1:2", "absolute", "squared:1", "floor:-1"])
def test_bad_objectives_are_refused(text) -> None:
    with pytest.raises(InputError, match="objective"):
        Objective.parse(text)


def test_fixed_and_shared_coefficients(variables_of) -> None:
    table = noisy("krajewski2024", variables_of)
    found = fit(table, "krajewski2024", fix={"c": 0.472}, bootstrap=20, starts=2)
    assert found.coefficients["E_0"] == 0.472
    assert found.held == {"E_0": 0.472}
    assert np.all(found.draws[:, 0] == 0.472)
    shared = fit(table, "krajewski2024", share=[("alpha", "beta")], bootstrap=20, starts=2)
    assert shared.coefficients["alpha"] == shared.coefficients["beta"]
    assert shared.objective >= fit(table, "krajewski2024", bootstrap=0, starts=2).objective


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fix": {"zeta": 1.0}}, "has no coefficient 'zeta'; it has E_0, a, alpha"),
        ({"fix": {"E_0": -1.0}}, "E_0 must be positive"),
        ({"share": [("alpha", "a")]}, "cannot be one number"),
        ({"share": [("alpha", "beta")], "fix": {"beta": 0.2}}, "one of them is fixed"),
        ({"bootstrap": -1}, "bootstrap: must be 0 to 100000, got -1"),
        ({"bootstrap": 10**9}, "bootstrap: must be 0 to 100000"),
        ({"starts": 0}, "starts: must be 1 to 100000"),
        ({"seed": -1}, "seed: must be at least 0, got -1"),
        ({"fix": {"E_0": 1e300}}, r"fix: E_0 must lie in 0 to 1e\+30"),
        ({"fix": {"E_0": 1e20}}, r"fix: with E_0=1e\+20: predictions are more than 100 times off"),
        ({"fix": {"E_0": float("nan")}}, "E_0 must be positive"),
    ],
)
def test_bad_options_are_refused(options, message, variables_of) -> None:
    with pytest.raises(InputError, match=message):
        fit(noisy("krajewski2024", variables_of), "krajewski2024", **options)


def test_bounds_are_reported(variables_of) -> None:
    law = get_law("krajewski2024")
    inside = noisy("krajewski2024", variables_of, noise=0.0)
    assert fit(inside, law, bootstrap=0).at_bound == ()
    # Finer experts are worse in these runs: gamma would have to be negative, which the law's bounds exclude.
    outside = {**inside, "loss": law.loss({**law.published, "gamma": -0.2}, inside)}
    found = fit(outside, law, bootstrap=0)
    assert "gamma" in found.at_bound
    assert found.coefficients["gamma"] == law.bounds["gamma"][0] == 0.0
