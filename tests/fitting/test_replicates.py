"""Bootstrap replicates of large tables: Newton steps from the optimum against the solver, on the same draws."""

import numpy as np
import pytest

from moelab.cli.progress import share_done
from moelab.fitting import replicates
from moelab.fitting.fit import fit, fit_observations
from moelab.fitting.observations import observations
from moelab.laws import get_law


def table_of(n: int, seed: int = 1, groups: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    params = np.exp(rng.uniform(np.log(44e6), np.log(16e9), n))
    table = {"params_total": params, "tokens": params * np.exp(rng.uniform(np.log(5), np.log(200), n))}
    noise = 0.005 * rng.standard_normal(n)
    if groups:
        table["family"] = rng.integers(0, groups, n)
        noise += 0.01 * rng.standard_normal(groups)[table["family"]]
    return {**table, "loss": get_law("besiroglu2024").loss(None, table) * np.exp(noise)}


def both(monkeypatch, table, law: str, count: int, **options):
    """Fits with every replicate by the solver, then by steps, for the same resampled tables."""
    n = len(table["loss"])
    rng = np.random.default_rng(0)
    drawn = np.stack([np.bincount(rng.integers(0, n, n), minlength=n) for _ in range(count)]).astype(float)
    monkeypatch.setattr(replicates, "resample", lambda data, count, *_: drawn[:count, : len(data)])
    solved = fit(table, law, bootstrap=count, starts=32, **options)
    monkeypatch.setattr(replicates, "MOST_SOLVED", 0)
    return solved, fit(table, law, bootstrap=count, starts=32, **options)


@pytest.mark.parametrize(
    "objective",
    [
        "huber:1e-3",
        pytest.param("squared", marks=pytest.mark.slow),
        pytest.param("floor:1e-3:0.3", marks=pytest.mark.slow),
    ],
)
def test_steps_keep_the_widths_of_the_full_bootstrap(monkeypatch, objective) -> None:
    solved, stepped = both(monkeypatch, table_of(600), "hoffmann2022", 60, objective=objective)
    designs = {"params_total": [1e8, 1e10, 1e11], "tokens": [1e10, 1e12, 1e13]}
    full, steps = solved.predict(designs), stepped.predict(designs)
    assert (steps.high - steps.low) == pytest.approx(full.high - full.low, rel=0.1)
    for name in solved.law.coefficients:
        a, b = solved.interval(name), stepped.interval(name)
        assert b["high"] - b["low"] == pytest.approx(a["high"] - a["low"], rel=0.1)


def test_replicates_in_a_curved_valley_are_finished_by_the_solver(monkeypatch, synthetic) -> None:
    law = get_law("abnar2025")
    solved, stepped = both(monkeypatch, synthetic(law, law.published, 60, 0.002), "abnar2025", 10)
    width = np.subtract(*np.quantile(solved.draws, [0.9, 0.1], axis=0))
    assert np.subtract(*np.quantile(stepped.draws, [0.9, 0.1], axis=0)) == pytest.approx(width, rel=0.1)


def test_held_and_bounded_coefficients_stay_where_they_are(monkeypatch) -> None:
    monkeypatch.setattr(replicates, "MOST_SOLVED", 0)
    table = table_of(300)
    table["loss"] = table["loss"] - 1.9 * get_law("besiroglu2024").published["E_0"] / 2  # the floor falls below zero
    fitted = fit(table, "hoffmann2022", bootstrap=30, starts=32, fix={"alpha": 0.35})
    assert np.all(fitted.draws[:, 2] == 0.35)
    assert np.isfinite(fitted.draws).all()
    assert np.all(fitted.draws[:, 0] > 0)


def test_a_large_table_is_noted_and_its_search_uses_a_sample() -> None:
    table = table_of(replicates.MOST_SOLVED + 1)
    fitted = fit(table, "hoffmann2022", bootstrap=30, starts=32)
    assert any("bootstrap replicates take" in note for note in fitted.notes)
    exact = fit(table, "hoffmann2022", bootstrap=0, starts=1)  # the published start, refined on every row
    assert fitted.objective == pytest.approx(exact.objective, rel=1e-9)
    spread = fitted.interval("alpha")
    assert spread["low"] < fitted.coefficients["alpha"] < spread["high"]


def test_groups_of_a_large_table_are_resampled_whole(monkeypatch) -> None:
    monkeypatch.setattr(replicates, "MOST_SOLVED", 0)
    table = table_of(400, groups=12)
    single, whole = (
        fit(table, "hoffmann2022", bootstrap=60, starts=32, group=group).interval_rel for group in ("none", "family")
    )
    assert whole > 2 * single


def test_progress_rises_to_one_and_its_bar_waits_two_seconds(capsys, monkeypatch) -> None:
    table = table_of(1000)
    shares: list[float] = []
    law = get_law("hoffmann2022")
    fit_observations(observations(table, law), law, bootstrap=70, starts=16, progress=shares.append)
    assert shares == sorted(shares)
    assert len(shares) > 1
    assert shares[-1] == 1.0
    for terminal, seconds, drawn in ((True, 1.9, False), (True, 2.1, True), (False, 2.1, False), (False, 31.0, True)):
        monkeypatch.setattr("rich.console.Console.is_terminal", terminal)
        times = iter([0.0, seconds, seconds])
        with share_done("bootstrap", clock=lambda times=times: next(times)) as update:
            update(0.5)
        printed = capsys.readouterr().err
        assert ("bootstrap" in printed) == drawn
        assert terminal or not drawn or printed == "bootstrap ... 50%\n"
