"""Diagnosis after a fit: what the laws miss is named, and a law of one's own that has it is confirmed."""

from typing import Any

import numpy as np
import pytest

import moelab
from moelab.fitting.fit import fit
from moelab.laws import catalogue, get_law
from moelab.laws.own import law_from_formula, register_law

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
