"""Fits under a prior: coordinates, the file, what a few runs borrow and what they owe; the solver against SciPy."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy.optimize import minimize

import moelab
from moelab.cli.fit_tables import print_fit
from moelab.errors import InputError
from moelab.fitting import compare_laws, load_fits, save_fits
from moelab.fitting.objective import Objective
from moelab.fitting.observations import observations
from moelab.fitting.posterior import maximise, temperature
from moelab.fitting.prior import Prior, by_coordinates, shipped, to_coefficients, to_coordinates
from moelab.fitting.prior_fit import evidence_of, posterior_of
from moelab.laws import get_law
from moelab.runs.datasets import reference

LAW = get_law("moelab2026")
TABLES = Path(__file__).parents[1] / "fixtures" / "tables"


def prior() -> Prior:
    found = shipped("moelab2026")
    assert found is not None
    return found.of(LAW)


@pytest.fixture(scope="module")
def runs() -> dict[str, np.ndarray]:
    """Twelve runs of the law that the prior holds most probable, with a floor and scales of their own."""
    rng = np.random.default_rng(5)
    theta = prior().mean.copy()
    theta[[0, 1, 3]] += (0.4, 0.3, -0.3)
    table: dict[str, np.ndarray] = {
        "params_active": np.geomspace(1e7, 2e8, 12),
        "tokens": np.geomspace(1e9, 1e10, 12)[rng.permutation(12)],
        "n_experts": np.tile([1.0, 8.0, 32.0], 4),
        "top_k": np.ones(12),
    }
    variables = observations({**table, "loss": np.linspace(3, 4, 12)}, LAW).variables
    loss = LAW.loss(to_coefficients(LAW, theta[None]), variables)[0]
    return {**table, "loss": loss * np.exp(0.003 * rng.standard_normal(12))}


def test_coordinates_have_an_inverse_and_their_gradient_is_right(coefficients_of, variables_of) -> None:
    coefficients, designs = coefficients_of(LAW), variables_of(9)
    theta = to_coordinates(LAW, coefficients)
    back = to_coefficients(LAW, theta)
    assert all(back[name][0, 0] == pytest.approx(value, rel=1e-12) for name, value in coefficients.items())
    variables = {name: designs[name] for name in LAW.variables}
    loss, gradient = LAW.formula(back, variables)
    jacobian = by_coordinates(LAW, gradient(), back, loss)[0]
    for k in range(theta.shape[1]):
        moved = theta.astype(complex)
        moved[0, k] += 1e-30j
        step = np.imag(np.log(LAW.formula(to_coefficients(LAW, moved), variables)[0]))[0] / 1e-30
        assert np.allclose(jacobian[:, k], step, rtol=1e-9, atol=1e-12)


def test_the_solver_finds_what_scipy_finds(runs) -> None:
    known, data = prior(), observations(runs, LAW)
    precision = np.linalg.inv(known.covariance)
    for kind in ("squared", "huber:1e-2"):
        evidence = evidence_of(data, LAW, Objective.parse(kind))
        heat = temperature(evidence.objective, 0.005)

        def value(theta: np.ndarray, evidence: Any = evidence, heat: float = heat) -> float:
            r = evidence.log_loss - evidence.predict(theta[None])[0]
            off = theta - known.mean
            return float(np.sum(evidence.objective.penalty(r)) / heat + 0.5 * off @ precision @ off)

        theta, reached = maximise(
            evidence, known.mean[None], known.mean[None], precision, np.ones((1, 12)), 0.005
        )  # fmt: skip
        found = minimize(value, theta[0] + 0.01, method="BFGS", options={"gtol": 1e-7, "maxiter": 2000})
        assert reached[0] == pytest.approx(value(theta[0]), rel=1e-12)
        assert reached[0] <= found.fun + 1e-5


def test_a_temperature_is_the_variance_for_squares() -> None:
    assert temperature(Objective.parse("squared"), 0.01) == pytest.approx(1e-4)
    assert temperature(Objective.parse("huber:10"), 0.01) == pytest.approx(1e-4)
    # For a small delta the penalty is delta |r|: its slope's variance over its curvature at 0.
    assert temperature(Objective.parse("huber:1e-6"), 0.01) == pytest.approx(1e-6 * 0.01 * np.sqrt(np.pi / 2), rel=1e-3)


def test_a_few_runs_borrow_strength_and_state_what_they_owe(runs, tmp_path: Path) -> None:
    fitted = moelab.fit(runs, "moelab2026", objective="squared", bootstrap=60)
    assert fitted.in_sample["mean_abs_rel"] < 0.006
    assert fitted.prior is not None
    assert fitted.prior["sha256"] == shipped("moelab2026").sha256
    share = fitted.prior["share"]
    assert set(share) == set(LAW.coefficients)
    assert all(0 <= value <= 1 for value in share.values())
    assert share["R_D"] > 0.9  # nothing is repeated
    assert share["sigma_1"] > 0.9  # no shared experts
    assert share["A"] < 0.5
    assert any("come mostly from it" in note for note in fitted.notes)
    save_fits({"moelab2026": fitted}, tmp_path / "fit.json")
    again = load_fits(tmp_path / "fit.json")["moelab2026"]
    assert again.prior == fitted.prior
    at = {"params_active": 1e9, "tokens": 1e11, "n_experts": 16, "top_k": 1}
    guess = again.predict(**at)
    assert guess.low[0] < guess.value[0] < guess.high[0]


def test_without_runs_that_tell_the_draws_keep_the_priors_width(runs) -> None:
    known = prior()
    data = observations(runs, LAW)
    found = posterior_of(data, LAW, known, Objective.parse("squared"), {}, 200, seed=1)
    names = list(LAW.coefficients)
    for name in ("R_D", "gamma"):
        drawn = np.log(found.draws[:, names.index(name)])
        assert np.std(drawn) == pytest.approx(np.sqrt(known.covariance[names.index(name)][names.index(name)]), rel=0.2)
    narrow = np.std(np.log(found.draws[:, names.index("A")]))
    assert np.isfinite(narrow)


def test_more_runs_owe_less(runs) -> None:
    few = moelab.fit({name: values[::3] for name, values in runs.items()}, "moelab2026", bootstrap=0)
    many = moelab.fit(runs, "moelab2026", bootstrap=0)
    assert few.prior is not None
    assert many.prior is not None
    assert many.prior["share"]["kappa_0"] < few.prior["share"]["kappa_0"]


def test_a_coefficient_may_be_held(runs) -> None:
    fitted = moelab.fit(runs, "moelab2026", fix={"kappa_0": 0.5}, bootstrap=5)
    assert fitted.coefficients["kappa_0"] == pytest.approx(0.5)
    assert np.allclose(fitted.draws[:, LAW.coefficients.index("kappa_0")], 0.5)
    assert fitted.held == {"kappa_0": 0.5}
    assert fitted.prior is not None
    assert "kappa_0" not in fitted.prior["share"]
    with pytest.raises(InputError, match="fix: A belongs to the table"):
        moelab.fit(runs, "moelab2026", fix={"A": 10.0})
    with pytest.raises(InputError, match="shares no coefficients"):
        moelab.fit(runs, "moelab2026", share=[["alpha", "beta"]])
    with pytest.raises(InputError, match="2 rows are too few; needs 3"):
        moelab.fit({name: values[:2] for name, values in runs.items()}, "moelab2026")


def test_none_fits_without_and_a_file_is_read(runs, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="12 rows are too few for 18 free coefficients"):
        moelab.fit(runs, "moelab2026", prior="none")
    own = shipped("moelab2026").to_json() | {"name": "mine"}
    place = tmp_path / "own.json"
    place.write_text(json.dumps(own))
    fitted = moelab.fit(runs, "moelab2026", prior=str(place), bootstrap=0)
    assert fitted.prior is not None
    assert fitted.prior["name"] == "mine"
    outer = moelab.fit(runs, "moelab2026-outer", bootstrap=0)
    assert 0.1 < outer.coefficients["k"] < 2
    with pytest.raises(InputError, match="mine is for moelab2026, not for wang2024"):
        moelab.fit({**runs, "params_total": runs["params_active"]}, "wang2024", prior=str(place))
    with pytest.raises(InputError, match="which is not among the laws"):
        compare_laws(runs, ["ludziejewski2025", "wang2024"], prior=str(place))
    for change, message in (
        ({"mean": []}, "cannot reshape"),
        ({"covariance": (-np.eye(19)).tolist()}, "positive definite"),
        ({"noise": None}, "NoneType"),
    ):
        place.write_text(json.dumps({**own, **change}))
        with pytest.raises(InputError, match=message):
            moelab.fit(runs, "moelab2026", prior=str(place))
    place.write_text("{}")
    with pytest.raises(InputError, match="the key 'coefficients' is missing"):
        moelab.fit(runs, "moelab2026", prior=str(place))


def test_the_shipped_prior_lists_its_sources() -> None:
    found = shipped("moelab2026")
    assert found is not None
    assert {source["group"] for source in found.sources} >= {"clark2022", "muennighoff2023", "ludziejewski2025"}
    assert all(len(source["sha256"]) == 64 and source["kind"] for source in found.sources)
    assert all("licence" in source or "source" in source for source in found.sources)
    assert shipped("wang2024") is None
    names = [*LAW.coefficients, "k"]
    assert list(found.coefficients) == names
    half = found.mean[names.index("kappa_0")], np.sqrt(found.covariance[names.index("kappa_0")][names.index("kappa_0")])
    assert half[0] - half[1] < 0.5 < half[0] + half[1]  # the folk rule lies within one standard deviation


def test_coefficients_that_the_runs_do_not_change_are_marked(runs, capsys: pytest.CaptureFixture[str]) -> None:
    """Without repeated data nothing is known of rho but the prior; a value of nearly 0 is printed as 0."""
    fitted = moelab.fit(runs, LAW, bootstrap=20)
    notes = fitted.coefficient_notes()
    assert notes["rho"] == "the prior's alone"
    assert notes["alpha"] == ""
    assert fitted.prior is not None
    assert {name for name, note in notes.items() if note == "the prior's alone"} == {
        name for name, share in fitted.prior["share"].items() if share >= 0.999
    }
    print_fit(fitted)
    text = capsys.readouterr().out
    assert "e-79" not in text
    assert "condition inf;" not in text


def conflict(table: Any, **options: Any) -> list[str]:
    """The notes of a fit on runs that lie far from the prior."""
    fitted = moelab.fit(table, LAW, bootstrap=0, group="none", **options)
    return [note for note in fitted.notes if note.startswith("the runs lie farther from the prior")]


def test_ordinary_runs_do_not_conflict_with_the_prior(runs) -> None:
    assert conflict(runs) == []
    table = reference().filter(pl.col("router").fill_null("dense").is_in(["dense", "token_choice"]))
    cheapest = table.sort("train_flops").head(30)
    assert conflict(cheapest) == []
    assert conflict(cheapest.drop("bits_per_byte")) == []
    for name in ("pandas_default.json", "checkpoints.csv", "iso8.csv", "porian_5e16.csv"):
        assert conflict(dense_table(TABLES / name)) == []


@pytest.mark.parametrize("name", ["percent.csv", "ppl.csv", "tokB.csv"])
def test_tables_in_another_unit_conflict_with_the_prior(name: str) -> None:
    (note,) = conflict(dense_table(TABLES / name))
    assert "check the units of loss, parameters and tokens, and the tokenizer; --prior none fits without" in note


def test_losses_per_character_conflict_with_the_prior() -> None:
    rng = np.random.default_rng(0)
    size, tokens = np.geomspace(2e5, 2e7, 20), np.geomspace(4e6, 4e8, 20)[rng.permutation(20)]
    loss = 0.45 + 0.225 * ((size / 2e5) ** -0.3 + (tokens / 4e6) ** -0.3)
    assert 0.45 < loss.min() < loss.max() < 0.9
    (note,) = conflict(
        {"params_active": size, "tokens": tokens, "loss": loss * np.exp(0.005 * rng.standard_normal(20))}
    )
    assert "most in A, B" in note


def test_a_coefficient_that_is_held_far_away_is_no_conflict_of_the_runs(runs) -> None:
    assert conflict(runs, fix={"gamma": 5.0, "rho": 3.0}) == []
    known = prior()
    at = list(LAW.coefficients).index("gamma")
    assert abs(np.log(5.0) - known.mean[at]) > 4 * np.sqrt(known.covariance[at, at])


def dense_table(path: Path) -> Any:
    table = moelab.load_table(path)
    return table.with_columns(params_active=pl.col("params_total"))
