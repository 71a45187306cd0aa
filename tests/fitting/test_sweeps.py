"""The optima of sweeps and their errors: noise widens them, edges are open, few designs give wide rules."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

from moelab.cli import main
from moelab.errors import InputError
from moelab.fitting.rules import fit_rule, load_rules, save_rules
from moelab.fitting.sweep_optimum import sweep_optima, tried_values
from moelab.laws import get_rule

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "sweep_coverage.py"


def table_of(rows: list[tuple[float, ...]]) -> dict[str, np.ndarray]:
    names = ("params_non_embedding", "tokens", "learning_rate", "loss")
    return dict(zip(names, np.array(rows).T, strict=True))


def few_rates(noise: float, seed: int, sizes: tuple[float, ...] = (1e8, 3e8, 1e9)) -> dict[str, np.ndarray]:
    """Designs at the same five rates, spaced by the root of ten; a run far above the best rate diverges."""
    rng, rule, rows = np.random.default_rng(seed), get_rule("steplaw2025"), []
    for n in sizes:
        for d in (2e9, 1e10):
            best = float(rule.apply(params_non_embedding=n, tokens=d)["learning_rate"])
            for rate in (1e-4, 3e-4, 1e-3, 3e-3, 1e-2):
                away = np.log(rate / best)
                loss = 3.0 * np.exp(0.004 * away**2 + noise * rng.standard_normal())
                rows.append((n, d, rate, 8.1 if away > np.log(6) else loss))
    return table_of(rows)


def by_hand(x: np.ndarray, y: np.ndarray) -> float:
    bend, slope, _ = np.polyfit(x, y, 2)
    return float(-slope / (2 * bend))


def test_without_noise_every_design_has_its_own_parabola() -> None:
    rates = np.geomspace(1e-4, 1e-2, 7)
    bests, bends = (4e-4, 1e-3, 2e-3), (0.02, 0.05, 0.2)
    swept = [
        tried_values(rates, 3 * (1 + bend * np.log(rates / best) ** 2), True)
        for best, bend in zip(bests, bends, strict=True)
    ]
    found = sweep_optima(swept)
    assert np.exp(found.at) == pytest.approx(bests, rel=1e-6)
    assert np.exp(found.at) == pytest.approx([np.exp(by_hand(t.x[t.near], t.excess[t.near])) for t in swept], rel=1e-6)
    assert (found.variance < 1e-12).all()
    assert not found.edge.any()


def test_with_noise_the_variance_is_that_of_many_such_sweeps() -> None:
    rng = np.random.default_rng(0)
    rates, bests = 1e-3 * 2.0 ** np.arange(-2, 3), np.geomspace(0.8e-3, 1.25e-3, 12)
    at, variances = [], []
    for _ in range(80):
        losses = 3 * np.exp(0.01 * np.log(rates / bests[:, None]) ** 2 + 0.001 * rng.standard_normal((12, 5)))
        found = sweep_optima([tried_values(rates, each, True) for each in losses])
        at.append(found.at - np.log(bests))
        variances.append(found.variance + found.shared**2)
    assert np.mean(variances) == pytest.approx(np.var(at), rel=0.15)
    assert abs(np.mean(at)) < 0.02


def test_an_edge_is_open_at_its_end(tmp_path) -> None:
    table = few_rates(0.0, 0, sizes=(3e7, 1e8, 3e8, 1e9))
    rule = fit_rule(table, "steplaw2025", bootstrap=40, starts=8, holdout=0)
    optima = rule.optima["learning_rate"]
    edges = [each for each in optima if each.edge]
    assert len(optima) == 8
    assert [each.edge for each in edges] == ["above", "above"]
    assert all((each.high is None and each.value == 0.01) or each.low is not None for each in edges)
    for each in optima:
        true = float(get_rule("steplaw2025").apply(**each.design)["learning_rate"])
        assert (each.low or 0) * 0.999 <= true <= (each.high or 1) * 1.001
        assert table["learning_rate"][each.row - 1] in (each.value, *table["learning_rate"])
    save_rules({"steplaw2025": rule}, tmp_path / "rules.json")
    assert load_rules(tmp_path / "rules.json")[0].predict({"params_non_embedding": 1e9, "tokens": 1e10})


def test_two_values_that_did_not_diverge_bound_nothing() -> None:
    table = few_rates(0.0, 0)
    first = (table["params_non_embedding"] == 1e8) & (table["tokens"] == 2e9)
    table["loss"] = np.where(first & (table["learning_rate"] > 4e-4), 9.5, table["loss"])
    table |= {"params_active_non_embedding": table["params_non_embedding"], "expert_ratio": np.ones(30)}
    options = {"starts": 8, "holdout": 0, "fix": {"epsilon": 0.0}}
    rule = fit_rule(table, "ludziejewski2025-lr", bootstrap=0, **options)
    assert rule.optima["learning_rate"][0].edge == "on either side"
    assert rule.optima["learning_rate"][0].high is None


def test_few_noisy_designs_give_intervals_that_hold_the_truth() -> None:
    """Six designs whose optima lie on a line by chance: a bootstrap over them gave intervals of a per cent."""
    held, widths = [], []
    for seed in range(6):
        rate = fit_rule(few_rates(0.001, seed), "steplaw2025", bootstrap=200, starts=8, holdout=0).fits["learning_rate"]
        ends = rate.interval("alpha")
        held.append(ends["low"] <= -0.713 <= ends["high"])
        widths.append(ends["high"] - ends["low"])
    assert sum(held) >= 4
    assert min(widths) > 0.05


def test_one_quantity_is_fitted_where_the_other_cannot_be() -> None:
    rng, rows = np.random.default_rng(0), []
    for d in (1e9, 2e9, 4e9, 8e9):
        for rate in (2.5e-4, 5e-4, 1e-3, 2e-3, 4e-3):
            for batch in (1e5, 2e5, 4e5, 8e5):
                bend = 0.004 * np.log(rate / 1e-3) ** 2 + 0.003 * np.log(batch / (2.5e5 * (d / 1e9) ** 0.4)) ** 2
                rows.append((1e8, d, rate, 3 * np.exp(bend + 0.0002 * rng.standard_normal()), batch))
    table = table_of([row[:4] for row in rows]) | {"batch_tokens": np.array([row[4] for row in rows])}
    fits = fit_rule(table, "steplaw2025", bootstrap=20, starts=8).fits
    assert list(fits) == ["batch_tokens"]
    assert any(
        "no rule for learning_rate: " in n and "4 designs are too few for 3" in n for n in fits["batch_tokens"].notes
    )


def test_the_exponent_of_a_constant_variable_is_not_identified() -> None:
    table = few_rates(0.0002, 0)
    table["tokens"] = np.full(30, 2e9)
    table["activation_rate"] = np.tile(np.repeat([0.1, 0.5], 5), 3)
    rate = fit_rule(table, "steplaw2025+activation", bootstrap=40, starts=8, holdout=0, fix={"delta": 0.0})
    fitted = rate.fits["learning_rate"]
    assert set(fitted.unidentified) == {"a", "beta"}
    assert fitted.interval("beta")["low"] is None


def test_too_few_designs_name_the_edges() -> None:
    table = few_rates(0.0, 0, sizes=(1e7, 3e7, 1e8, 3e8))
    with pytest.raises(
        InputError, match=r"are too few for 3 free .*; \d of 6 designs have their best learning_rate at the"
    ):
        fit_rule({name: values[:30] for name, values in table.items()}, "steplaw2025", bootstrap=0)


def test_losses_that_bend_nowhere_are_refused() -> None:
    table = few_rates(0.0, 0)
    table["loss"] = 3 - 0.01 * np.log(table["learning_rate"] / 1e-3) ** 2
    with pytest.raises(InputError, match="learning_rate: the losses rise on both sides of a best value in no design"):
        fit_rule(table, "steplaw2025", bootstrap=0)
    with pytest.raises(InputError, match=r'loss: must be positive; row 3 holds -1; drop it with --where "loss > 0"'):
        fit_rule(table | {"loss": np.where(np.arange(30) == 2, -1.0, table["loss"])}, "steplaw2025", bootstrap=0)


def test_the_command_prints_each_designs_best_rate(tmp_path, capsys) -> None:
    table = few_rates(0.0002, 1, sizes=(3e7, 1e8, 3e8, 1e9))
    lines = [",".join(table), *(",".join(map(repr, map(float, row))) for row in zip(*table.values(), strict=True))]
    (tmp_path / "sweep.csv").write_text("\n".join(lines) + "\n")
    with pytest.raises(SystemExit) as stop:
        main(["fit", str(tmp_path / "sweep.csv"), "--law", "steplaw2025", "--bootstrap", "40", "--starts", "8"])
    assert not stop.value.code
    printed = capsys.readouterr().out
    assert "steplaw2025-learning_rate, 6 designs" in printed
    assert "best learning_rate" in printed
    assert printed.count("at the edge, best above") == 2
    assert "design of row " in printed


@pytest.mark.slow
def test_coverage_of_made_up_sweeps() -> None:
    """`benchmarks/sweep_coverage.py` prints the table: 300 sweeps here take a minute, these 100 some ten seconds."""
    spec = importlib.util.spec_from_file_location("sweep_coverage", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    sys.modules["sweep_coverage"] = script
    spec.loader.exec_module(script)
    shares, refused = [], 0
    for cell in script.CELLS:
        found = script.measured(cell, 10)
        shares += found["held"].values()
        refused += found["refused"]
    assert 0.75 <= np.mean(shares) <= 0.92
    assert refused <= 10
