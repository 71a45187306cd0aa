"""Intervals beyond the fitted runs: the drift that held-out runs show, and the factor of fits with a prior."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import moelab
from moelab.errors import InputError
from moelab.fitting import FittedLaw, load_fits, save_fits
from moelab.fitting.blanks import DENSE
from moelab.fitting.fit_file import fit_from_json, fit_to_json
from moelab.fitting.fitted_kinds import MARKS
from moelab.fitting.observations import observations
from moelab.fitting.prediction import Prediction
from moelab.fitting.prior import shipped, to_coefficients
from moelab.fitting.widening import (
    ALONE,
    AS_DRAWN,
    BETWEEN,
    Widening,
    Z,
    conformal,
    held_out,
    is_moe,
    log_scale,
    scale_words,
    widening_of,
)
from moelab.laws import get_law
from moelab.planning.given_laws import predictors_of

LAW = get_law("moelab2026")


def runs(bend: float = 0.0, count: int = 24) -> dict[str, np.ndarray]:
    """Runs of the law that the shipped prior holds most probable; `bend` adds to the log loss of the largest third."""
    known = shipped("moelab2026")
    assert known is not None
    rng = np.random.default_rng(3)
    table = {
        "params_active": np.geomspace(1e7, 1e9, count),
        "tokens": np.geomspace(1e9, 3e10, count),
        "n_experts": np.tile([1.0, 8.0], count // 2),
        "top_k": np.ones(count),
    }
    variables = observations({**table, "loss": np.linspace(3, 4, count)}, LAW).variables
    loss = LAW.loss(to_coefficients(LAW, known.of(LAW).mean[None]), variables)[0]
    size = np.log(table["params_active"] / table["params_active"][count // 2])
    return {**table, "loss": loss * np.exp(0.003 * rng.standard_normal(count) + bend * np.maximum(size, 0))}


@pytest.fixture(scope="module")
def bent() -> FittedLaw:
    """The law fitted to runs that it does not describe. Read only."""
    return moelab.fit(runs(bend=0.08), LAW, bootstrap=50)


class Half:
    """A fit that predicts 1 with an interval of 10 % up and down, whatever it was fitted to."""

    def predict(self, table=None, *, noise: bool = False) -> Prediction:
        assert noise
        one = np.ones(len(table["tokens"]))
        return Prediction(one, one / 1.1, one * 1.1, 0 * one)


def measured(table, fit_part=None, usual=(0.0, 0.0)) -> Widening:
    data = observations(table, LAW)
    return widening_of(data, held_out(data, fit_part or (lambda part: Half())), usual)


def test_the_factor_is_the_conformal_quantile_of_all_held_out_runs() -> None:
    table = runs()
    table["loss"] = np.exp(np.log(1.1) * np.arange(24) / 8)  # in half-widths: 12/8 to 23/8, and 16/8 to 23/8
    parts = []

    def fit_part(part):
        parts.append(len(part))
        return Half()

    data = observations(table, LAW)
    splits = held_out(data, fit_part)
    assert parts == [12, 16]
    ratios = sorted(np.concatenate([split.ratios(0.0) for split in splits]))
    assert ratios == pytest.approx(sorted([*np.arange(12, 24) / 8, *np.arange(16, 24) / 8]))
    found = widening_of(data, splits)
    drifted = np.concatenate([split.ratios(found.drift) for split in splits])
    assert found.held_out == 20
    assert found.factor == conformal(drifted)
    assert conformal(np.array(ratios)) == ratios[int(np.ceil(21 * 0.8)) - 1]
    assert conformal(np.array([3.0, 1.0, 2.0])) == 3.0  # of three, none but the largest holds the next with 80 %
    table["loss"] = np.full(24, 1.001) + 1e-9 * np.arange(24)
    assert measured(table) == Widening(1.0, 0.0, found.reach, 20)  # never narrower than the draws


def test_the_drift_is_what_draws_leave_unexplained_per_e_fold() -> None:
    table = runs()
    scale = np.log(table["params_active"] * table["tokens"])
    for far in (0.05, 0.1):
        half = np.log(1.1) / Z  # the standard deviation that the draws explain
        table["loss"] = np.exp(
            [np.hypot(half, far * (max(x - scale[11], 1.0) if x > scale[11] else x - scale[11])) for x in scale]
        )
        split = held_out(observations(table, LAW), lambda part: Half())[0]
        assert np.sqrt(split.squared_drift) == pytest.approx(far)
    explained = measured({**table, "loss": np.full(24, 1.001) + 1e-9 * np.arange(24)}, usual=(0.03, 2.0))
    assert explained.drift == pytest.approx(0.03 * np.sqrt(2 / 4))  # two splits of its own beside two of others
    assert explained.reach == pytest.approx(scale.max())
    few = {name: values[:5] for name, values in runs().items()}
    assert measured(few, usual=(0.03, 2.0)).drift == 0.03  # nothing of its own


def test_runs_of_one_budget_show_no_growth_with_the_distance() -> None:
    known = shipped("moelab2026")
    assert known is not None
    rng, table = np.random.default_rng(1), runs(count=12)
    jitter = 1 + 0.003 * rng.standard_normal(12)
    table["params_active"] = np.geomspace(1e7, 1e9, 12)
    table["tokens"] = 1e18 / 6 / table["params_active"] * jitter
    table["loss"] = 3 + 0.1 * np.linspace(-1, 1, 12) ** 2 + 0.03 * rng.standard_normal(12)
    fitted = moelab.fit(table, LAW, bootstrap=50)
    assert fitted.widening.drift < 3 * known.drift[0]
    at = fitted.predict(params_active=1e9, tokens=1e12, n_experts=1, top_k=1)
    assert 0.5 * at.value < at.low < at.high < 2 * at.value


def test_intervals_grow_with_compute_beyond_the_runs_and_designs_keep_their_differences() -> None:
    values, draws = np.array([3.0, 2.5, 2.4]), np.full((4000, 3), [3.0, 2.5, 2.4])
    at = {"params_active": np.array([1e8, 1e9, 1e9]), "tokens": np.array([1e9, 1e10, 1e10])}
    found = Widening(1.0, 0.02, np.log(1e17)).of(draws, values, at)
    assert np.array_equal(found[:, 0], draws[:, 0])  # within the fitted runs
    spread = np.std(np.log(found[:, 1] / 2.5))
    assert spread == pytest.approx(0.02 * np.log(1e19 / 1e17), rel=0.05)
    assert np.allclose(found[:, 1] / found[:, 2], 2.5 / 2.4)  # one drift for all designs of a kind
    kinds = {**at, "expert_ratio": np.array([1.0, 1.0, 8.0])}
    apart = np.log(Widening(1.0, 0.02, np.log(1e17)).of(draws, values, kinds)[:, 1:] / values[1:])
    assert np.std(apart, axis=0) == pytest.approx(0.02 * np.log(1e19 / 1e17), rel=0.05)
    gap = apart[:, 0] - apart[:, 1]
    assert np.std(gap) == pytest.approx(0.02 * np.log(1e19 / 1e17) * np.sqrt(2 * BETWEEN), rel=0.05)
    assert np.allclose(Widening(2.0, 0.02, np.log(1e17)).of(draws, values, at), values * (found / values) ** 2)
    assert AS_DRAWN.of(draws, values, at) is draws
    assert np.array_equal(Widening(1.0, 0.02, 1.0).of(draws, values, {"flops": np.ones(3)}), draws)


def test_too_few_runs_and_one_budget_leave_it_at_one() -> None:
    few = {name: values[:5] for name, values in runs().items()}
    assert (measured(few).factor, measured(few).held_out) == (1.0, 0)
    same = {**runs(), "train_flops": np.full(24, 1e18)}
    assert (measured(same).factor, measured(same).held_out) == (1.0, 0)


def test_runs_that_the_law_does_not_describe_widen_its_intervals(bent: FittedLaw, tmp_path: Path) -> None:
    right = moelab.fit(runs(), LAW, bootstrap=50)
    assert 1 <= right.widening.factor < 1.6
    assert bent.widening.drift > 1.5 * right.widening.drift
    assert bent.widening.factor >= 1
    assert bent.widening.held_out == 20
    assert bent.widening.reach == pytest.approx(np.log(1e9 * 3e10))
    assert any("of this table and of the prior's tables" in note for note in bent.notes)
    for factor, shown in ((1.3, "1.3"), (1.034, "1.03"), (12.34, "12.3")):
        assert f"are {shown} times as wide as the draws" in Widening(factor).notes("training FLOPs")[0]
    assert Widening(1.004).notes("training FLOPs") == []  # it would round to once
    assert "runs of the prior's tables" in Widening(1.0, 0.01, 3.0).notes("parameters", "the prior's tables")[0]
    save_fits({LAW.id: bent}, tmp_path / "fit.json")
    again = load_fits(tmp_path / "fit.json")[LAW.id]
    at = {"params_active": 5e9, "tokens": 1e11, "n_experts": 8, "top_k": 1}
    assert again.predict(**at).high[0] == bent.predict(**at).high[0]


def test_deviations_of_draws_are_multiplied_in_fits_and_in_plans(bent: FittedLaw) -> None:
    fitted = bent
    variables = observations(runs(), LAW).variables
    batch = {name: fitted.draws[:, k, None] for k, name in enumerate(LAW.coefficients)}
    value = LAW.loss(fitted.coefficients, variables)
    plain = LAW.loss(batch, variables)
    expected = np.exp(np.log(value) + fitted.widening.factor * (np.log(plain) - np.log(value)))
    assert np.allclose(fitted.draw_losses(variables), expected, rtol=1e-12)  # all within the fitted runs
    predictor = predictors_of([fitted])[0]
    conversion = LAW.variables_of(moelab.load_model("olmoe-1b-7b"), 1e11, 4096, published=False)
    unknown = replace(predictor, most_flops=None)  # the distance is that of the law's variables
    assert np.allclose(unknown.draw_losses(conversion, 1.0), fitted.draw_losses(conversion.variables), rtol=1e-12)
    assert predictor.most_flops == pytest.approx(6e9 * 3e10)
    known = replace(predictor, most_flops=1e20)
    within, beyond = (known.draw_losses(conversion, flops) for flops in (1e20, 2e20))
    assert np.allclose(within, replace(known, widening=Widening(fitted.widening.factor)).draw_losses(conversion, 1.0))
    assert np.std(np.log(beyond / within)) == pytest.approx(
        fitted.widening.factor * fitted.widening.drift * np.log(2), rel=0.25
    )


def alone(bend: float = 0.0, count: int = 24, **options) -> FittedLaw:
    """Hoffmann's law fitted without a prior to its own runs, the larger half bent off it."""
    law = get_law("hoffmann2022")
    table = {"params_total": np.geomspace(1e7, 1e9, count), "tokens": np.tile([1e9, 4e9, 2e10], count // 3)}
    size = np.log(table["params_total"] * table["tokens"] / 1e17)
    loss = np.asarray(law.loss(None, table)) * np.exp(bend * np.maximum(size, 0))
    return moelab.fit({**table, "loss": loss}, law, bootstrap=50, starts=32, **options)


def test_laws_without_a_prior_drift_as_held_out_runs_of_other_tables_and_their_own_do() -> None:
    right, bent = alone(), alone(bend=0.2)
    assert right.widening.drift == pytest.approx(ALONE[0] * np.sqrt(ALONE[1] / (ALONE[1] + 2)), rel=1e-2)
    assert bent.widening.drift > 1.5 * right.widening.drift
    assert (right.widening.factor, bent.widening.factor) == (1.0, 1.0)  # within the runs, the draws' own
    assert right.widening.held_out == bent.widening.held_out > 0
    few = alone(count=9)
    assert (few.widening.drift, few.widening.held_out) == (ALONE[0], 0)  # too few rows to hold any out
    assert "predictions of held-out runs of other tables" in few.notes[-1]
    assert "of this table and of other tables" in right.notes[-1]
    inside = {"params_total": 1e8, "tokens": 1e9}
    for fitted in (right, few):
        plain = replace(fitted, widening=AS_DRAWN)
        assert fitted.predict(**inside).high == plain.predict(**inside).high
        reach = np.log(6.0) + fitted.widening.reach
        far = {"params_total": 1e10, "tokens": np.exp(reach) / 6e10 * np.exp(2.0)}  # two e-folds beyond
        wide = fitted.predict(**far)
        assert np.log(wide.high / wide.low) / 2 == pytest.approx(
            np.hypot(Z * 2 * fitted.widening.drift, np.log(plain.predict(**far).high / wide.value)), rel=0.35
        )


def test_laws_without_tokens_drift_by_size_and_sparsity_counts_active_parameters() -> None:
    one = np.ones(2)
    assert log_scale({"params_active_non_embedding": 1e6 * one}) == pytest.approx(np.log(1e6 * one))
    sparse = {"params_total": 8e6 * one, "tokens": 1e9 * one, "sparsity": 0.75 * one}
    assert log_scale(sparse) == pytest.approx(np.log(2e15 * one))
    assert log_scale({"flops": one}) is None
    assert log_scale({"train_flops": 6e20 * one, "params_active": one}) == pytest.approx(np.log(1e20 * one))
    names = [scale_words(dict.fromkeys(each)) for each in (["train_flops", "tokens"], ["tokens"], ["params_total"])]
    assert names == ["training FLOPs", "parameters x tokens", "parameters"]
    assert "ten times the parameters of the largest" in Widening(1.0, 0.01, 3.0).notes("parameters")[0]


def test_every_variable_of_experts_separates_the_kinds() -> None:
    for name in MARKS:
        other = {"sparsity": 0.5, "expert_activation": 0.5, "activation_rate": 0.5}.get(name, 8.0)
        assert is_moe({"tokens": np.ones(2), name: np.array([DENSE[name], other])}).tolist() == [False, True]
    assert is_moe({"tokens": np.ones(2)}).tolist() == [False]


def test_without_draws_there_is_no_interval_to_widen() -> None:
    law = get_law("hoffmann2022")
    table = {"params_total": np.geomspace(1e7, 1e9, 24), "tokens": np.tile([1e9, 4e9, 2e10], 8)}
    assert moelab.fit({**table, "loss": law.loss(None, table)}, law, bootstrap=0, starts=8).widening is AS_DRAWN


def test_fit_files_keep_the_widening_and_older_ones_have_it_with_the_prior(bent: FittedLaw, tmp_path: Path) -> None:
    for fitted in (bent, alone(count=9)):
        held = fit_to_json(fitted)
        assert held["widening"] == fitted.widening.to_dict()
        assert fit_from_json(held).widening == fitted.widening
        widening = held.pop("widening")
        older = {**held, "prior": {**(held.get("prior") or {}), "widening": widening}}
        assert fit_from_json(older).widening == fitted.widening
        assert "older version" in fit_from_json({**held, "prior": None}).notes[-1]
        for wrong in ({"drift": -1.0}, {"drift": float("nan")}, {"factor": 0.5}):
            with pytest.raises(InputError, match="fit file: widening"):
                fit_from_json({**held, "widening": {**widening, **wrong}})
    assert Widening.from_dict(AS_DRAWN.to_dict()) == AS_DRAWN
    assert Widening.from_dict({}) == AS_DRAWN
