"""The compute-optimal point of one's own fit: its intervals are those of the draws, one by one, and the loss's that of
a prediction there."""

import json
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from moelab.cli import main
from moelab.fitting import save_fits
from moelab.fitting.fit import fit
from moelab.fitting.fitted_optimum import DRAWS_ALONE
from moelab.fitting.intervals import lies_outside, outside_note
from moelab.fitting.predict import predict
from moelab.fitting.widening import AS_DRAWN, Widening
from moelab.laws import get_law
from moelab.laws.optimum import optimum
from moelab.laws.optimum_draws import law_compute, optimum_draws

DENSE = get_law("hoffmann2022")


@pytest.fixture(scope="module")
def fitted(synthetic):
    return fit(synthetic(DENSE, DENSE.published, 60, 0.005), DENSE, bootstrap=80, starts=32)


def test_intervals_and_exponents_are_those_of_the_draws(fitted) -> None:
    found = fitted.optimum(1e21)
    sizes, powers = [], []
    for draw in fitted.draws:
        coefficients = dict(zip(DENSE.coefficients, draw, strict=True))
        sizes.append(optimum(DENSE, 1e21, None, coefficients).values["params_total"])
        powers.append(coefficients["beta"] / (coefficients["alpha"] + coefficients["beta"]))
    ordered, slopes = np.sort(sizes), np.sort(powers)
    ends = found.intervals["params_total"]
    assert ends["value"] == optimum(DENSE, 1e21, None, fitted.coefficients).values["params_total"]
    assert (ends["low"], ends["high"]) == pytest.approx((ordered[7], ordered[72]), rel=1e-4)
    power = found.exponents["params_total"]
    c = fitted.coefficients
    assert power["value"] == pytest.approx(c["beta"] / (c["alpha"] + c["beta"]), abs=1e-5)
    assert (power["low"], power["high"]) == pytest.approx((slopes[7], slopes[72]), abs=1e-4)
    assert found.exponents["tokens"]["value"] == pytest.approx(1 - power["value"], abs=1e-5)
    assert found.point.extrapolation == pytest.approx(
        float(DENSE.extrapolation({k: np.array([v]) for k, v in found.point.values.items()}, fitted.ranges)[0])
    )


@pytest.mark.parametrize("name", ["krajewski2024", "ludziejewski2025", "abnar2025", "muennighoff2023", "tian2025"])
def test_many_coefficients_at_once_are_each_its_own_optimum(name) -> None:
    law, rng = get_law(name), np.random.default_rng(0)
    draws = {n: v * np.exp(0.01 * rng.standard_normal((6, 1))) for n, v in law.published.items()}
    values, _ = optimum_draws(law, 1e21, {}, draws)
    for k in range(6):
        one = optimum(law, 1e21, {}, {n: v[k, 0] for n, v in draws.items()})
        for variable, value in one.values.items():
            if variable in values:
                assert values[variable][k] == pytest.approx(value, rel=1e-4), variable
        assert values["loss"][k] == pytest.approx(one.loss, rel=1e-8)


@pytest.mark.parametrize("name", ["hoffmann2022", "krajewski2024", "ludziejewski2025", "abnar2025"])
def test_the_compute_of_a_run_is_that_of_the_laws_convention(name) -> None:
    best = optimum(get_law(name), 3e20)
    law = get_law(name)
    run = {variable: best.values[variable] for variable in law.variables}
    assert law_compute(law, run) == pytest.approx(3e20)
    assert law_compute(get_law("clark2022-sbase"), run) is None


def test_draws_without_an_optimum_leave_the_end_open(fitted) -> None:
    steep = fitted.draws.copy()
    steep[:40, DENSE.coefficients.index("A")] = 1e-12  # size costs nothing: the smallest model is best
    found = replace(fitted, draws=steep).optimum(1e21)
    assert found.intervals["params_total"]["low"] is None
    assert any("50% of the draws have no optimum" in note for note in found.notes)


@pytest.mark.parametrize("widening", [Widening(1.0, 0.03, np.log(1e19 / 6)), Widening(2.5)])
def test_the_loss_has_the_interval_of_a_prediction_at_the_optimum(fitted, widening, tmp_path, capsys) -> None:
    """Up to the spread of the draws' own optima, whose loss is flat there; sizes keep the draws' intervals."""
    drawn, wider = (replace(fitted, widening=each) for each in (AS_DRAWN, widening))
    found, plain = wider.optimum(1e22), drawn.optimum(1e22)
    at = {name: found.point.values[name] for name in DENSE.variables}
    there, narrow = wider.predict(**at), drawn.predict(**at)
    loss, width = found.intervals["loss"], there.high[0] - there.low[0]
    assert loss["value"] == pytest.approx(there.value[0])
    assert (loss["low"], loss["high"]) == pytest.approx((there.low[0], there.high[0]), abs=0.05 * width)
    assert width > 1.5 * (narrow.high[0] - narrow.low[0])
    assert {**found.intervals, "loss": 0} == {**plain.intervals, "loss": 0}
    assert found.exponents == plain.exponents
    assert DRAWS_ALONE in found.notes
    assert DRAWS_ALONE not in plain.notes
    save_fits({DENSE.id: wider}, tmp_path / "fit.json")
    with pytest.raises(SystemExit):
        main(["laws", DENSE.id, "--optimum", "--flops", "1e22", "--law", str(tmp_path / "fit.json"), "--json"])
    printed = json.loads(capsys.readouterr().out)
    assert printed["intervals"]["loss"] == pytest.approx(loss)
    assert printed["notes"] == list(found.notes)


def test_a_value_outside_its_interval_is_noted(fitted) -> None:
    assert lies_outside(1.0, 1.1, 2.0)
    assert not lies_outside(1.0, None, 2.0)
    assert outside_note("x", {"value": 3.0, "low": 1.0, "high": None}) == []
    moved = fitted.draws * 1.0
    moved[:, DENSE.coefficients.index("alpha")] *= 1.5
    biased = replace(fitted, draws=moved)
    assert biased.coefficient_notes()["alpha"].startswith("outside: draws centre on 0.5")
    assert any("params_total" in note for note in biased.optimum(1e21).notes)
    assert "prediction lies outside its interval" in predict(biased, params_total=1e9, tokens=2e10).notes[0]
    assert predict(fitted, params_total=1e9, tokens=2e10).notes == ()


def test_the_command_prints_intervals_and_takes_its_file(fitted, synthetic, tmp_path, capsys) -> None:
    save_fits({"hoffmann2022": fitted}, tmp_path / "fit.json")

    def run(*words: object) -> str:
        with pytest.raises(SystemExit) as stop:
            main([str(word) for word in words])
        printed = capsys.readouterr()
        assert not stop.value.code, printed.err
        return printed.out

    call = ("laws", "hoffmann2022", "--optimum", "--flops", "1e21", "--law", tmp_path / "fit.json")
    found = json.loads(run(*call, "--json"))
    assert found["intervals"]["params_total"] == fitted.optimum(1e21).intervals["params_total"]
    assert found["params_total"] == found["intervals"]["params_total"]["value"]
    assert "params_total ~ C^" in run(*call)
    table = synthetic(DENSE, DENSE.published, 40, 0.01)
    pl.DataFrame({**table, "name": [f"r{i}" for i in range(40)]}).write_csv(tmp_path / "runs.csv")
    printed = run("fit", tmp_path / "runs.csv", "--law", "hoffmann2022", "--bootstrap", "40", "--starts", "8")
    assert "without" in printed
    assert ", r" in printed
