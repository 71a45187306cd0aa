"""Diagnosis after a fit: what the laws miss is named, and a law of one's own that has it is confirmed."""

from typing import Any

import numpy as np
import pytest

import moelab
from moelab.fitting.fit import fit
from moelab.laws import catalogue, get_law
from moelab.laws.law_keys import law_from_formula
from moelab.laws.own import register_law

PLAIN = "E_0 + (a + g / granularity**gamma) / params_active**alpha + b / tokens**beta"
VARIABLES = ["params_active", "tokens", "granularity", "activation_rate"]
STARTS = {"alpha": [0.05, 1], "beta": [0.05, 1], "gamma": [0.1, 1.5]}
TRUE = {"E_0": 1.5, "a": 20, "g": 8, "gamma": 0.6, "alpha": 0.2, "b": 30, "beta": 0.18, "k": -0.03}


def own(law_id: str, formula: str, variables: list[str]) -> dict[str, Any]:
    return {"id": law_id, "formula": formula, "variables": variables, "starts": STARTS, "bounds": {"k": [-1, 1]}}


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> dict[str, np.ndarray]:
    """Sixty runs with noise from a law with an interaction of granularity and activation rate; ten repeat."""
    monkeypatch.setattr(catalogue, "_OWN", {})
    rng = np.random.default_rng(0)
    runs = {
        "params_active": 10 ** rng.uniform(7.5, 9.5, 50),
        "tokens": 10 ** rng.uniform(9.5, 11.5, 50),
        "granularity": 2.0 ** rng.integers(0, 6, 50),
        "activation_rate": rng.choice([0.05, 0.1, 0.2, 0.5], 50),
    }
    runs = {name: np.concatenate([values, values[:10]]) for name, values in runs.items()}
    with_k = own("true2026", f"{PLAIN} + k * log(granularity) * log(activation_rate)", VARIABLES)
    loss = law_from_formula(with_k).loss(TRUE, runs) * np.exp(0.003 * rng.standard_normal(60))
    register_law(with_k)
    register_law({**own("plain2026", PLAIN, VARIABLES[:3]), "bounds": {}})
    return {**runs, "loss": loss, "seed": np.repeat([0, 1], [50, 10])}


def test_a_missing_interaction_is_named_and_its_law_confirmed(table) -> None:
    found = moelab.compare_laws(table, ["plain2026"], bootstrap=0, starts=16)
    notes = " ".join(found.fits["plain2026"].diagnosis)
    assert "times the seed noise" in notes
    assert "activation_rate" in notes.split("residuals follow ")[1].split(" (p")[0]
    assert found.findings[-1].check == "misfit"
    assert found.findings[-1].text.startswith("every law misses by")
    both = moelab.compare_laws(table, ["plain2026", "true2026"], bootstrap=0, starts=16)
    assert next(iter(both.fits)) == "true2026"
    assert both.weights["true2026"] > 0.9
    assert not any("misses by" in note or "residuals follow" in note for note in both.fits["true2026"].diagnosis)
    assert all(finding.check != "misfit" for finding in both.findings)


def test_a_true_law_has_no_trend(synthetic) -> None:
    law = get_law("hoffmann2022")
    for seed in range(5):
        table = synthetic(law, law.published, 40, 0.005, seed)
        assert fit(table, law, bootstrap=0, starts=8).diagnosis == ()


@pytest.fixture
def clean(synthetic) -> dict[str, np.ndarray]:
    law = get_law("hoffmann2022")
    return synthetic(law, law.published, 60, 0.005)


def test_outcomes_and_texts_are_tested_too(clean) -> None:
    rng = np.random.default_rng(3)
    imbalance = np.exp(rng.standard_normal(60))
    text = rng.choice(["adamw", "muon"], 60)
    off = {**clean, "loss": clean["loss"] * np.exp(0.004 * np.log(imbalance)), "max_violation": imbalance}
    fitted = fit(off, "hoffmann2022", bootstrap=0, starts=8)
    assert len(fitted.diagnosis) == 1
    assert fitted.diagnosis[0].startswith("residuals follow max_violation (p ")
    assert fitted.diagnosis[0].endswith("an outcome: runs with more of it lie above the law")
    test = fitted.residual_tests[0]
    assert (test.name, test.kind) == ("max_violation", "outcome")
    assert test.slope_rel == pytest.approx(0.004, rel=0.3)
    off = {**clean, "loss": clean["loss"] * np.where(text == "muon", 0.985, 1), "optimizer": text}
    fitted = fit(off, "hoffmann2022", bootstrap=0, starts=8)
    assert fitted.diagnosis[0].startswith("residuals follow optimizer (p ")
    assert fitted.residual_tests[0].kind == "text"


def test_an_outcome_that_only_grows_with_size_is_no_finding_of_its_own(clean) -> None:
    """Residuals follow the granularity; so does the time, which is not named beside it."""
    rng = np.random.default_rng(0)
    granularity = 2.0 ** rng.integers(0, 6, 60)
    table = {**clean, "granularity": granularity, "loss": clean["loss"] * granularity**-0.02}
    table["seconds"] = granularity * np.exp(0.3 * rng.standard_normal(60))
    fitted = fit(table, "hoffmann2022", bootstrap=0, starts=8)
    assert [note.split(" (")[0] for note in fitted.diagnosis] == ["residuals follow granularity"]


def test_the_chance_of_a_false_finding_is_held_over_all_tests(clean) -> None:
    """Forty columns of noise beside noise in the loss: Holm's correction leaves nothing."""
    rng, law = np.random.default_rng(5), get_law("hoffmann2022")
    noise = {f"column {k}": rng.standard_normal(60) for k in range(40)}
    fitted = fit({**clean, **noise}, law, bootstrap=0, starts=8)
    assert fitted.diagnosis == ()
    assert len(fitted.residual_tests) > 40
    assert min(test.p for test in fitted.residual_tests) < 0.1
    ordered = [test.p_all for test in fitted.residual_tests]
    assert ordered == sorted(ordered)
    assert all(test.p_all >= test.p for test in fitted.residual_tests)


def test_another_loss_is_no_outcome(clean) -> None:
    fitted = fit({**clean, "train_loss": clean["loss"] * 1.01}, "hoffmann2022", bootstrap=0, starts=8)
    assert "train_loss" not in {test.name for test in fitted.residual_tests}


def test_checkpoints_of_a_run_are_no_independent_evidence(clean) -> None:
    """Six runs that each lie off by chance: their forty-eight checkpoints show no trend of the size."""
    law, found = get_law("hoffmann2022"), 0
    for seed in range(5):
        rng = np.random.default_rng(seed)
        params = np.repeat(np.geomspace(1e8, 2e9, 6), 8)
        table = {"params_total": params, "tokens": np.tile(np.geomspace(1e9, 1e10, 8), 6) * params / 1e8}
        off = np.repeat(0.01 * rng.standard_normal(6), 8)
        table |= {"loss": law.loss(None, table) * np.exp(off), "run": np.repeat([f"r{i}" for i in range(6)], 8)}
        table["d_model"] = np.repeat(rng.permutation(6) * 64.0 + 64, 8)
        found += bool([note for note in fit(table, law, bootstrap=0, starts=1).diagnosis if "follow" in note])
    assert found <= 1


def test_coefficients_that_the_runs_do_not_identify_have_no_interval(clean) -> None:
    one_size = {**clean, "params_total": np.full(60, 1e9)}
    one_size["loss"] = get_law("hoffmann2022").loss(None, one_size) * np.exp(
        0.005 * np.random.default_rng(0).standard_normal(60)
    )
    fitted = fit(one_size, "hoffmann2022", bootstrap=30, starts=16)
    assert {"A", "alpha"} & set(fitted.unidentified)
    for name in fitted.unidentified:
        assert fitted.interval(name) == {"value": fitted.coefficients[name], "low": None, "high": None}
        assert "not identified" in fitted.coefficient_notes()[name]
    assert fitted.interval("beta")["low"] is not None
    assert any("these runs do not identify" in note for note in fitted.diagnosis)


def test_laws_that_differ_are_shown_with_the_design(clean) -> None:
    clean["name"] = np.array([f"run {k}" for k in range(60)])
    clean["unique_tokens"] = clean["tokens"] / np.repeat([1.0, 8.0], 30)
    found = moelab.compare_laws(clean, ["hoffmann2022", "muennighoff2023"], bootstrap=0, starts=8)
    inside, beyond = found.differ_most
    rows = found.disagreement(clean)
    worst = max(range(60), key=lambda k: rows[k]["spread"])
    assert (inside.row, inside.label, inside.spread) == (worst + 1, f"run {worst}", rows[worst]["spread"])
    assert inside.design == {name: clean[name][worst] for name in ("params_total", "tokens", "unique_tokens")}
    assert inside.predictions == {name: rows[worst][name] for name in found.fits}
    at = beyond.row - 1
    assert beyond.design["tokens"] == pytest.approx(10 * clean["tokens"][at])
    for name, fitted in found.fits.items():
        assert beyond.predictions[name] == pytest.approx(float(fitted.predict(**beyond.design).value[0]))


def test_coefficients_at_a_bound_are_marked(synthetic) -> None:
    """Losses that fall with tokens as the fifth power, beyond the law's bound of 3."""
    law = get_law("hoffmann2022")
    table = synthetic(law, law.published, 40)
    table["loss"] = 1 + (1e8 / table["params_total"]) ** 0.3 + (table["tokens"] / table["tokens"].min()) ** -5.0
    fitted = fit(table, law, bootstrap=0, starts=32)
    assert fitted.at_bound == ("beta",)
    assert fitted.coefficients["beta"] == law.bounds["beta"][1]
    assert [note for note in fitted.diagnosis if note.startswith("beta: at a bound")]
    assert next(row for row in fitted.coefficient_rows() if row[0] == "beta")[-1] == "at a bound"
