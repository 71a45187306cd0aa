"""Hold-outs and the comparison of laws: what is held out, what is scored, what is refused."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

import moelab
from moelab.errors import InputError
from moelab.fitting import (
    FittedLaw,
    Holdout,
    compare_laws,
    group_holdout,
    load_fits,
    masked_holdout,
    ordered_holdout,
    save_fits,
)
from moelab.fitting.fit import fit
from moelab.fitting.fitted import fit_rows, holdout_rows
from moelab.fitting.supported import supported_laws
from moelab.laws import get_law
from moelab.planning.given_laws import predictors_of

FEW = {"bootstrap": 12, "starts": 2}
NONE = {"bootstrap": 0, "starts": 1}
"""Where no interval is looked at."""


@pytest.fixture(scope="module")
def sweep(variables_of) -> pl.DataFrame:
    """Sixty runs of the joint law with .5 % noise."""
    designs = variables_of(60, 4)
    names = ("params_active", "params_total", "tokens", "expert_ratio", "sparsity", "granularity", "n_experts")
    table = {name: designs[name] for name in names}
    loss = get_law("ludziejewski2025").loss(None, table)
    noise = np.exp(0.005 * np.random.default_rng(0).standard_normal(60))
    table["train_flops"] = 6 * table["params_active"] * table["tokens"]
    return pl.DataFrame({**table, "loss": loss * noise, "sweep": np.arange(60) % 3})


@pytest.fixture(scope="module")
def ordered(sweep) -> tuple[FittedLaw, Holdout]:
    """A fifth of the sweep held out in the order of its FLOPs."""
    return ordered_holdout(sweep, "wang2024", 0.2, **FEW)


@pytest.fixture(scope="module")
def by_family(sweep) -> tuple[pl.DataFrame, Holdout]:
    """The sweep in two families, and the score of each predicted from the other."""
    halves = sweep.with_columns(family=pl.Series(["a", "b"] * 30))
    return halves, group_holdout(halves, "wang2024", "family", **FEW)


def test_the_most_expensive_runs_are_held_out(sweep) -> None:
    fitted, score = ordered_holdout(sweep, "ludziejewski2025", 0.2, **NONE)
    assert (fitted.n_runs, score.n_runs) == (48, 12)
    flops = np.sort(sweep["train_flops"].to_numpy())
    assert score.max_extrapolation == pytest.approx(flops[-1] / flops[47])
    assert all(row["factor"] > 1 for row in score.rows)
    relative = [row["predicted"] / row["measured"] - 1 for row in score.rows]
    assert score.bias_rel == pytest.approx(np.mean(relative))
    assert score.mean_abs_rel == pytest.approx(np.mean(np.abs(relative)))
    assert score.mean_abs_rel < 0.03


def test_runs_of_one_budget_stay_together(sweep) -> None:
    budgets = sweep.with_columns(train_flops=pl.Series(np.repeat([1e18, 1e19, 1e20], 20) * (1 + 1e-9 * np.arange(60))))
    assert ordered_holdout(budgets, "wang2024", 0.2, **NONE)[1].n_runs == 20
    same = sweep.with_columns(train_flops=pl.lit(1e20))
    with pytest.raises(InputError, match="every run costs the same"):
        ordered_holdout(same, "wang2024", 0.2, **NONE)


def test_without_flops_the_order_is_parameters_times_tokens(sweep, ordered) -> None:
    with_flops = ordered[1]
    without = ordered_holdout(sweep.drop("train_flops"), "wang2024", 0.2, **FEW)[1]
    assert without.rows == [pytest.approx(row) for row in with_flops.rows]


def test_leave_one_group_out(sweep) -> None:
    score = group_holdout(sweep, "wang2024", "sweep", **NONE)
    assert score.n_runs == 60
    assert {row["group"] for row in score.rows} == {"0", "1", "2"}
    with pytest.raises(InputError, match="holdout-by: the table has no column 'nothing'"):
        group_holdout(sweep, "wang2024", "nothing")
    with pytest.raises(InputError, match="holdout-by: the table has no column 'nothing'"):
        compare_laws(sweep, holdout_by="nothing", **NONE)
    with pytest.raises(InputError, match="exclude one another"):
        compare_laws(sweep, holdout=0.2, holdout_by="sweep", **NONE)
    with pytest.raises(InputError, match="60 values; expected 2 to 50 groups"):
        group_holdout(sweep, "wang2024", "params_active")


def test_two_groups_can_be_held_out_with_a_bootstrap(by_family) -> None:
    _, score = by_family
    assert score.n_runs == 60
    assert score.coverage_80 is not None


def test_the_users_groups_are_what_the_bootstrap_resamples(by_family) -> None:
    halves, score = by_family
    assert group_holdout(halves, "wang2024", "family", group="sweep", **FEW).rows != score.rows


def test_too_few_draws_claim_no_coverage(sweep) -> None:
    score = ordered_holdout(sweep, "wang2024", 0.2, bootstrap=1, starts=1)[1]
    assert score.coverage_80 is None
    assert score.rows[0]["low"] is None


def test_enormous_tables_are_ordered_without_overflow(sweep) -> None:
    from moelab.fitting.observations import compute_order

    order = compute_order({"params_total": np.array([1e208, 2e208]), "tokens": np.array([3e109, 1e109])})
    assert order is not None
    assert order[0] / order[1] == pytest.approx(1.5)


def test_chosen_rows_are_held_out(sweep) -> None:
    held = sweep["sweep"].to_numpy() == 1
    fitted, score = masked_holdout(sweep, "wang2024", held, **NONE)
    assert (fitted.n_runs, score.n_runs) == (40, 20)
    with pytest.raises(InputError, match="some rows and not for all"):
        masked_holdout(sweep, "wang2024", np.ones(60, bool))


@pytest.mark.parametrize("fraction", [0.0, 1.0, -1.0])
def test_fractions_must_be_inside(fraction, sweep) -> None:
    with pytest.raises(InputError, match="expected a fraction between 0 and 1"):
        ordered_holdout(sweep, "wang2024", fraction)


@pytest.mark.parametrize("share", [2.0, -0.1, float("nan")])
def test_a_share_that_is_none_is_refused_before_anything_is_fitted(sweep, share) -> None:
    with pytest.raises(InputError, match=r"^holdout: expected a fraction between 0 and 1, got"):
        compare_laws(sweep, holdout=share)


def test_too_few_rows_left_are_refused(sweep) -> None:
    with pytest.raises(InputError, match="too few for"):
        ordered_holdout(sweep, "wang2024", 0.9, **FEW)


def test_a_law_without_a_hold_out_neither_leads_nor_weighs(sweep) -> None:
    few = sweep.head(22).with_columns(params_dense=pl.col("params_active"))
    result = compare_laws(few.drop("sparsity"), ["yun2024", "wang2024"], **NONE)
    assert list(result.fits) == ["wang2024", "yun2024"]  # ten coefficients leave no row of twenty-two to hold out
    assert result.fits["yun2024"].holdout is None
    assert any(note.startswith("no hold-out: ") for note in result.fits["yun2024"].notes)
    assert result.weights == {"wang2024": 1.0, "yun2024": 0.0}
    alone = compare_laws(few, ["yun2024"], **NONE)
    assert alone.weights == {"yun2024": 1.0}


def test_comparison_ranks_by_held_out_error_and_weighs(sweep) -> None:
    result = compare_laws(sweep.drop("sparsity"), holdout=0.2, **NONE)
    assert set(result.fits) == {"ludziejewski2025", "wang2024", "moelab2026"}
    assert result.skipped["moelab2026-outer"] == "a variant of moelab2026; ask for it by its id"
    error = [fitted.holdout.mean_abs_rel for fitted in result.fits.values()]
    assert error == sorted(error)
    assert sum(result.weights.values()) == pytest.approx(1)
    assert result.skipped["hoffmann2022"] == "describes dense models only"
    assert result.skipped["clark2022-sbase"] == "no column for params_active_non_embedding"
    rows = result.disagreement(sweep)
    assert len(rows) == 60
    assert rows[0]["spread"] == pytest.approx(np.ptp([rows[0][name] for name in result.fits]))
    at = {
        "params_active": 1e9,
        "params_total": 4e9,
        "tokens": 2e10,
        "expert_ratio": 8,
        "n_experts": 8,
    }
    members = [float(fitted.predict(**at).value[0]) for fitted in result.fits.values()]
    assert min(members) <= float(result.predict(**at)[0]) <= max(members)


def test_what_a_table_does_not_identify_is_noted(sweep) -> None:
    mixed = sweep.with_columns(params_non_embedding=pl.col("params_total"), expansion=pl.col("expert_ratio"))
    notes = fit(mixed, "krajewski2024", **NONE).notes
    assert any("runs are dense, which this law does not describe" in note for note in notes)
    assert any("the runs differ in expansion" in note for note in notes)
    dense_too = mixed.with_columns(params_active_non_embedding=pl.col("params_active"))
    assert supported_laws(dense_too)[1]["clark2022-sbase"] == "has no variable for tokens, in which the runs differ"
    assert supported_laws(mixed)[1]["krajewski2024"].startswith("does not describe the dense runs")


def test_all_gives_reasons_when_nothing_fits() -> None:
    with pytest.raises(InputError, match="the table supports no law"):
        compare_laws({"loss": np.ones(5), "x": np.ones(5)})
    laws, skipped = supported_laws({"params_total": [1e9], "tokens": [1e9], "loss": [1.0]})
    assert [law.id for law in laws] == ["hoffmann2022"]
    assert skipped["besiroglu2024"] == "the same form as hoffmann2022"


def test_a_bad_cell_is_named_whatever_the_laws(sweep) -> None:
    bad = sweep.with_columns(loss=pl.Series(["x" if i == 6 else "3" for i in range(60)]))
    with pytest.raises(InputError, match=r"^law: no law could be fitted: loss: expected numbers, row 7 holds 'x' \("):
        compare_laws(bad, **FEW)


def test_fix_must_belong_to_some_law(sweep) -> None:
    with pytest.raises(InputError, match="has a coefficient 'nothing'"):
        compare_laws(sweep, fix={"nothing": 1.0}, **NONE)
    result = compare_laws(sweep, ["ludziejewski2025", "wang2024"], holdout_optional=False, fix={"zeta": 0.0}, **NONE)
    assert result.fits["ludziejewski2025"].held == {"zeta": 0.0}
    assert result.fits["wang2024"].held == {}


def test_small_tables_skip_the_hold_out_with_a_note(sweep) -> None:
    few = compare_laws(sweep.head(13), ["wang2024"], **NONE).fits["wang2024"]
    assert few.holdout is None
    assert few.notes[-1].startswith("no hold-out: wang2024: 10 rows are too few")


def test_rows_for_figures(sweep, ordered) -> None:
    fitted, score = ordered
    whole = fit(sweep, "wang2024", **FEW).with_holdout(score)
    rows = fit_rows(whole)
    assert len(rows) == 60
    assert sum(row["held_out"] for row in rows) == 12
    assert len(holdout_rows(whole)) == 12
    assert holdout_rows(fitted) == []
    assert "vega-lite" in whole.plot().to_json()


def test_a_holdout_at_the_compute_of_the_fitted_runs_is_noted(clean) -> None:
    """Of one budget some runs are held out where their FLOPs differ by rounding: that tests no extrapolation."""
    jitter = 1 + 0.001 * np.arange(30) / 30
    one = {**clean, "train_flops": np.repeat([1e18, 1e19, 1e20], 10) * jitter}
    note = compare_laws(one, ["hoffmann2022"], holdout=0.2, **NONE).reach_note()
    assert note is not None
    assert note.startswith("the held-out runs have 1 times the compute of the largest fitted one")
    assert "--holdout-where" in note
    whole = compare_laws(one, ["hoffmann2022"], holdout=0.33, **NONE)
    assert whole.reach_note() is None


def held(errors: list[float], half: float | None) -> Holdout:
    """Runs of loss 3 predicted too high by these relative errors, with intervals of this relative half-width."""
    rows = [
        {
            "row": k, "measured": 3.0, "predicted": 3 * (1 + e), "extrapolation": 1.0, "factor": 2.0,
            "low": None if half is None else 3 * (1 + e - half), "high": None if half is None else 3 * (1 + e + half),
        }
        for k, e in enumerate(errors)
    ]  # fmt: skip
    mean = float(np.mean(errors))
    return Holdout(
        n_runs=len(rows), mean_abs_rel=mean, bias_rel=mean, coverage_80=None, max_extrapolation=2.0, by="x", rows=rows
    )


@pytest.mark.parametrize(
    ("errors", "half", "failure"),
    [
        ([0.02] * 3, 0.01, "its hold-out (x) was missed by 2.0% on average; none of 3 inside their 80 % intervals"),
        ([0.02] * 2, 0.01, ""),  # two outside by chance: 4 %
        ([0.02, 0.02, 0.001], 0.01, ""),  # 10 %
        (
            [0.02] * 4 + [0.0],
            0.01,
            "its hold-out (x) was missed by 1.6% on average; 1 of 5 inside their 80 % intervals",
        ),
        ([0.3], None, "its hold-out (x) was missed by 30.0% on average"),
        ([0.02] * 9, None, ""),
    ],
)
def test_a_hold_out_fails_by_a_tenth_of_the_loss_or_by_its_intervals(errors, half, failure) -> None:
    assert held(errors, half).failure() == failure
    assert held([0.3], None).failure("learning_rate") == ""


def test_a_failed_hold_out_stays_with_the_fit(tmp_path: Path) -> None:
    """Ten runs whose larger ones diverge from the law: too few for a drift of their own, but the hold-out is known."""
    size, tokens = np.tile([1e8, 3e8, 1e9], 4)[:10], np.repeat([2e9, 4e9, 9e9, 3e10], 3)[:10]
    loss = 1.8 + 400 / size**0.34 + 400 / tokens**0.28 + np.where(np.arange(10) > 6, 1.5, 0.0)
    table = {"params_total": size, "tokens": tokens, "loss": loss}
    fitted = compare_laws(table, ["hoffmann2022"], holdout=0.3, bootstrap=40, starts=8).fits["hoffmann2022"]
    assert fitted.holdout is not None
    failure = fitted.holdout.failure()
    assert failure.startswith("its hold-out (the most expensive runs) was missed by ")
    assert failure in fitted.notes
    save_fits({"hoffmann2022": fitted}, tmp_path / "fit.json")
    loaded = load_fits(tmp_path / "fit.json")["hoffmann2022"]
    assert loaded.notes == fitted.notes
    line = f"the fit of hoffmann2022: {failure}"
    assert line in moelab.predict(tmp_path / "fit.json", params_total=1e9, tokens=2e10).notes
    assert line in loaded.optimum(1e20).notes
    assert predictors_of([loaded])[0].fit_notes == (line,)
    good = {**table, "loss": 1.8 + 400 / size**0.34 + 400 / tokens**0.28}
    fine = compare_laws(good, ["hoffmann2022"], holdout=0.3, bootstrap=40, starts=8).fits["hoffmann2022"]
    assert not any("its hold-out" in note for note in (*fine.notes, *fine.optimum(1e20).notes))
