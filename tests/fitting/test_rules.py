"""Rules fitted to sweeps: known power laws come back, edges are left out, and a plan uses what was fitted."""

import csv
import json

import numpy as np
import pytest

from moelab.cli import main
from moelab.errors import InputError
from moelab.fitting.rules import fit_rule, load_rules, save_rules
from moelab.laws import get_rule
from moelab.laws.rule_forms import ACTIVATION, RULE_FORMS, rule_laws
from moelab.planning import Budget, Space
from moelab.planning.plan import plan


def sweep(rate_of, designs: int = 24, noise: float = 0.0, tried: int = 9, width: float = 4.0, seed: int = 0):
    """Designs each run at `tried` rates around the best one; the loss is a parabola in the logarithm of the rate."""
    rng = np.random.default_rng(seed)
    columns: dict[str, list[float]] = {}
    for _ in range(designs):
        design = {
            "params_non_embedding": float(np.exp(rng.uniform(np.log(1e7), np.log(1e9)))),
            "tokens": float(np.exp(rng.uniform(np.log(1e9), np.log(1e11)))),
            "activation_rate": float(rng.choice([0.05, 0.1, 0.25, 0.5, 1.0])),
            "d_model": float(rng.choice([256, 512, 1024])),
        }
        best = rate_of(design)
        for rate in np.exp(np.linspace(-np.log(width), np.log(width), tried)) * best * np.exp(rng.uniform(-0.2, 0.2)):
            loss = 3 + 0.05 * np.log(rate / best) ** 2 + noise * rng.standard_normal()
            for name, value in {**design, "learning_rate": rate, "loss": loss}.items():
                columns.setdefault(name, []).append(value)
    return {name: np.array(values) for name, values in columns.items()}


def test_the_published_step_law_comes_back_from_its_own_optima() -> None:
    rule = get_rule("steplaw2025")
    table = sweep(lambda design: float(rule.apply(**design)["learning_rate"]))
    table["batch_tokens"] = rule.apply(**table)["batch_tokens"]
    fitted = fit_rule(table, "steplaw2025", bootstrap=40, starts=64)
    rate, batch = fitted.fits["learning_rate"], fitted.fits["batch_tokens"]
    assert rate.coefficients == pytest.approx({"a": 1.79, "alpha": -0.713, "beta": 0.307}, rel=1e-5)
    assert batch.coefficients == pytest.approx({"a": 0.58, "beta": 0.571}, rel=1e-5)
    assert rate.holdout.mean_abs_rel < 1e-5
    assert rate.n_runs == 24


def test_noise_gives_intervals_that_hold_the_truth_and_activation_is_a_factor() -> None:
    def rate(design) -> float:
        return (
            0.4 * design["params_non_embedding"] ** -0.3 * design["tokens"] ** 0.1 * design["activation_rate"] ** 0.35
        )

    table = sweep(rate, designs=40, noise=0.002, seed=3)
    with_rate = fit_rule(table, "steplaw2025" + ACTIVATION, bootstrap=200, starts=64).fits["learning_rate"]
    without = fit_rule(table, "steplaw2025", bootstrap=20, starts=64).fits["learning_rate"]
    ends = with_rate.interval("delta")
    assert ends["low"] - 0.02 < 0.35 < ends["high"] + 0.02
    assert 0 < ends["high"] - ends["low"] < 0.2
    assert with_rate.holdout.mean_abs_rel < 0.5 * without.holdout.mean_abs_rel


@pytest.mark.parametrize("name", [*RULE_FORMS, "tian2025-moe" + ACTIVATION])
def test_every_form_is_its_power_law(name) -> None:
    values = {
        "params_non_embedding": 1e9, "params_active_non_embedding": 2e8, "tokens": 1e10, "train_flops": 1e19,
        "expert_ratio": 8.0, "d_model": 512.0, "activation_rate": 0.2, "batch_tokens": 1e6,
    }  # fmt: skip
    for law in rule_laws(name).values():
        coefficients = dict.fromkeys(law.coefficients, 0.25)
        by_hand = 0.25 * np.prod([values[v] ** (0.5 if v == "batch_tokens" else 0.25) for v in law.variables])
        assert law.loss(coefficients, values) == pytest.approx(by_hand)
        assert ("activation_rate" in law.variables) == name.endswith(ACTIVATION)


def test_designs_whose_best_rate_is_at_the_edge_are_left_out() -> None:
    table = sweep(lambda design: 1e-3 * (design["tokens"] / 1e10) ** 0.2)
    first = table["params_non_embedding"] == table["params_non_embedding"][0]
    kept = ~first | (table["learning_rate"] < np.median(table["learning_rate"][first]) / 1.5)
    fitted = fit_rule({name: column[kept] for name, column in table.items()}, "steplaw2025", bootstrap=0, starts=32)
    rate = fitted.fits["learning_rate"]
    assert rate.n_runs == 23
    assert "1 of 24 designs have their best learning_rate at the edge of the sweep: left out" in rate.notes


def test_the_table_of_a_sweep_is_checked() -> None:
    table = sweep(lambda design: 1e-3, designs=8)
    table |= {"params_non_embedding": table["params_non_embedding"] / 1e6, "tokens": table["tokens"] / 1e9}
    notes = fit_rule(table, "steplaw2025", bootstrap=0, starts=16).fits["learning_rate"].notes
    assert "look like millions; --let 'params_non_embedding = 1e6 * params_non_embedding'" in notes[0]
    assert "look like billions; --let 'tokens = 1e9 * tokens'" in notes[1]


def test_the_influence_on_a_rule_is_on_its_quantity() -> None:
    table = sweep(lambda design: 1e-3 * (design["tokens"] / 1e10) ** 0.2, designs=12, noise=0.004)
    rate = fit_rule(table, "steplaw2025", bootstrap=40, starts=16).fits["learning_rate"]
    assert rate.influence.title.startswith("learning_rate at 10 times")
    assert not any("loss" in note for note in rate.diagnosis)


def test_seeds_of_a_sweep_are_averaged() -> None:
    """More seeds at one rate make the least of them lower, not their mean."""
    table = sweep(lambda design: 1e-3 * (design["tokens"] / 1e10) ** 0.2, designs=8)
    once = fit_rule(table, "steplaw2025", bootstrap=0, starts=16).fits["learning_rate"]
    three = {name: np.tile(values, 3) for name, values in table.items()}
    many = table["learning_rate"] > np.median(table["learning_rate"])
    three |= {"seed": np.repeat([0, 1, 2], len(many))}
    three["loss"] = three["loss"] + 0.02 * np.concatenate([0 * many, many, -1.0 * many])
    mean = fit_rule(three, "steplaw2025", bootstrap=0, starts=16).fits["learning_rate"]
    assert mean.coefficients == pytest.approx(once.coefficients, rel=1e-6)
    assert any("144 rows repeat the settings of another one" in note for note in mean.notes)


def test_a_rate_under_another_name_is_suggested() -> None:
    table = sweep(lambda design: 1e-3, designs=3)
    table["peak_lr"] = table.pop("learning_rate")
    with pytest.raises(InputError, match=r"to fit; --let 'learning_rate = peak_lr'$"):
        fit_rule(table, "steplaw2025", bootstrap=0)


@pytest.mark.parametrize(
    ("change", "rule", "message"),
    [
        ({"learning_rate": None}, "steplaw2025", "no column learning_rate or batch_tokens"),
        ({"tokens": None}, "steplaw2025", "no column for tokens"),
        ({"activation_rate": None}, "steplaw2025+activation", r"or leave out \+activation where all runs share one"),
        ({"loss": None}, "steplaw2025", "loss: the table has no such column"),
        ({}, "steplaw2024", "has no form to fit"),
    ],
)
def test_bad_sweeps_are_refused(change, rule, message) -> None:
    table = {**sweep(lambda design: 1e-3, designs=3), **change}
    with pytest.raises(InputError, match=message):
        fit_rule({name: column for name, column in table.items() if column is not None}, rule, bootstrap=0)


def test_a_plan_uses_the_rules_of_a_file(tmp_path, capsys) -> None:
    table = sweep(lambda design: 0.02 * design["params_non_embedding"] ** -0.2 * design["tokens"] ** 0.05)
    with open(tmp_path / "sweep.csv", "w", newline="") as file:
        csv.writer(file).writerows([list(table), *zip(*table.values(), strict=True)])
    path = tmp_path / "rules.json"
    options = ["--bootstrap", "50", "--starts", "32", "--out", str(path), "--json"]
    with pytest.raises(SystemExit) as stop:
        main(["fit", str(tmp_path / "sweep.csv"), "--law", "steplaw2025", *options])
    assert not stop.value.code
    found = json.loads(capsys.readouterr().out)["rules"]["steplaw2025"]["learning_rate"]
    assert found["coefficients"]["alpha"]["value"] == pytest.approx(-0.2, abs=1e-4)
    space = Space(d_model=(1024,), n_layers=(12, 16), n_experts=(16,), top_k=(1,), vocab_size=32000)
    best = plan(Budget(flops=1e20), ["ludziejewski2025", str(path)], space).best
    own = best.rates[0]
    assert own.rule == "steplaw2025 (fitted)"
    assert best.learning_rate == own.learning_rate
    assert own.learning_rate == pytest.approx(0.02 * best.params_non_embedding**-0.2 * best.tokens**0.05, rel=1e-3)
    low, high = own.intervals["learning_rate"]
    assert low <= own.learning_rate * (1 + 1e-6)
    assert high >= own.learning_rate * (1 - 1e-6)
    assert own.distance is not None
    assert best.batch_tokens == next(rate.batch_tokens for rate in best.rates if rate.batch_tokens is not None)


def test_every_option_of_a_fit_works_or_is_refused(tmp_path, capsys) -> None:
    table = sweep(lambda design: 0.02 * design["params_non_embedding"] ** -0.2 * design["tokens"] ** 0.05, noise=0.004)
    table["team"] = np.repeat(np.arange(24) % 4, 9)
    table["share"] = np.repeat(np.linspace(1, 3, 24), 9)
    options = {"bootstrap": 10, "starts": 8}
    plain = fit_rule(table, "steplaw2025", **options).fits["learning_rate"]
    grouped = fit_rule(table, "steplaw2025", group="team", **options).fits["learning_rate"]
    weighed = fit_rule(table, "steplaw2025", weight="share", **options).fits["learning_rate"]
    huber = fit_rule(table, "steplaw2025", objective="huber:0.01", **options).fits["learning_rate"]
    shared = fit_rule(table, "steplaw2025", share=[["alpha", "beta"]], **options).fits["learning_rate"]
    assert grouped.coefficients == plain.coefficients
    assert not np.allclose(grouped.draws, plain.draws)
    assert weighed.coefficients != plain.coefficients
    assert huber.objective_kind == "huber:0.01"
    assert shared.coefficients["alpha"] == shared.coefficients["beta"]
    by = fit_rule(table, "steplaw2025", holdout_by="team", **options).fits["learning_rate"].holdout
    assert (by.n_runs, by.by) == (24, "each team in turn")
    some = fit_rule(table, "steplaw2025", holdout_rows=table["team"] == 1, **options).fits["learning_rate"].holdout
    assert some.n_runs == 6
    with open(tmp_path / "sweep.csv", "w", newline="") as file:
        csv.writer(file).writerows([list(table), *zip(*table.values(), strict=True)])
    for option, value in (("--plot", "x.svg"), ("--plot-holdout", "x.svg"), ("--best-of", "tokens")):
        with pytest.raises(SystemExit) as stop:
            main(["fit", str(tmp_path / "sweep.csv"), "--law", "steplaw2025", option, value])
        assert stop.value.code == 2
        assert f"{option}: " in capsys.readouterr().err
    call = ["fit", str(tmp_path / "sweep.csv"), "--law", "steplaw2025", "--holdout-where", "team = 1", "--json"]
    with pytest.raises(SystemExit) as stop:
        main([*call, "--bootstrap", "20", "--starts", "8"])
    assert not stop.value.code
    found = json.loads(capsys.readouterr().out)["rules"]["steplaw2025"]["learning_rate"]
    assert found["holdout"]["n_runs"] == 6


def test_saved_rules_read_back(tmp_path) -> None:
    fitted = fit_rule(sweep(lambda design: 1e-3 * (design["tokens"] / 1e10) ** 0.2), "steplaw2025", bootstrap=10)
    save_rules({"steplaw2025": fitted}, tmp_path / "rules.json")
    again = load_rules(tmp_path / "rules.json")[0]
    values = {"params_non_embedding": 1e9, "tokens": 1e11}
    assert again.predict(values) == fitted.predict(values)
    (tmp_path / "rules.json").write_text('{"rules": {"steplaw2025": {"momentum": {}}}}')
    with pytest.raises(InputError, match="momentum is none of"):
        load_rules(tmp_path / "rules.json")


def step_sweep(noise: float = 0.0005, seed: int = 0) -> dict[str, np.ndarray]:
    """Nine designs at five rates by four batches around the published step law's optimum."""
    rng, rule, rows = np.random.default_rng(seed), get_rule("steplaw2025"), []
    for n in (1e8, 3e8, 1e9):
        for d in (2e9, 1e10, 5e10):
            best = rule.apply(params_non_embedding=n, tokens=d)
            for rate in (0.25, 0.5, 1.0, 2.0, 4.0):
                for batch in (0.35, 0.7, 1.4, 2.8):
                    bend = 0.004 * np.log(rate) ** 2 + 0.003 * np.log(batch) ** 2 + noise * rng.standard_normal()
                    loss = (1.69 + 406.4 / n**0.34 + 410.7 / d**0.28) * np.exp(bend)
                    rows.append(
                        (n, d, float(best["learning_rate"]) * rate, float(best["batch_tokens"]) * batch, loss, rate)
                    )
    names = ("params_non_embedding", "tokens", "learning_rate", "batch_tokens", "loss", "times")
    return dict(zip(names, np.array(rows).T, strict=True))


def without(table: dict[str, np.ndarray], *names: str) -> dict[str, np.ndarray]:
    return {name: values for name, values in table.items() if name not in names}


@pytest.mark.parametrize("high", [8.9, 10.5, 5.0])
def test_diverged_runs_of_a_sweep_bend_no_parabola(high) -> None:
    table = step_sweep(noise=0.0)
    table["loss"] = np.where(table["times"] > 3, np.maximum(high, 1.3 * table["loss"]), table["loss"])
    table = without(table, "times")
    rate = fit_rule(table, "steplaw2025", bootstrap=20, starts=16, holdout=0).fits["learning_rate"]
    assert rate.coefficients == pytest.approx({"a": 1.79, "alpha": -0.713, "beta": 0.307}, rel=1e-3)
    assert any("36 runs lie 15% or more above their design's least loss" in note for note in rate.notes)
    assert any("36 of 180 rows look diverged" in note for note in rate.notes)


def test_runs_that_only_begin_to_diverge_are_in_no_parabola_or_in_the_interval() -> None:
    table = step_sweep()
    table["loss"] = table["loss"] * np.where(table["times"] > 3, 1.05, 1.0)
    rate = fit_rule(without(table, "times"), "steplaw2025", bootstrap=100, starts=16, holdout=0).fits["learning_rate"]
    ends = rate.interval("a")
    assert ends["low"] < 1.79 < ends["high"]
    assert rate.coefficients["alpha"] == pytest.approx(-0.713, abs=0.03)


def test_where_the_next_rate_diverges_there_is_no_optimum() -> None:
    table = step_sweep(noise=0.0)
    first = (table["params_non_embedding"] == 1e8) & (table["tokens"] == 2e9)
    table["loss"] = np.where(first & (table["times"] > 1), 9.5, table["loss"])
    rate = fit_rule(without(table, "times"), "steplaw2025", bootstrap=0, starts=16, holdout=0).fits["learning_rate"]
    assert rate.n_runs == 8
    assert "1 of 9 designs have their best learning_rate at the edge of the sweep: left out" in rate.notes


def test_the_window_enters_the_interval() -> None:
    """A loss that is no parabola in ln value has another optimum by each window: the interval holds both."""
    table = step_sweep(noise=0.0)
    table["loss"] = table["loss"] * np.where(table["times"] > 3, 1.004, 1.0)
    rate = fit_rule(without(table, "times"), "steplaw2025", bootstrap=40, starts=16, holdout=0).fits["learning_rate"]
    ends = rate.interval("a")
    assert ends["low"] * (1 - 1e-6) <= 1.79 <= ends["high"] * (1 + 1e-6)
    assert ends["high"] / ends["low"] > 1.01


def test_designs_at_one_rate_have_no_optimum() -> None:
    table = without(step_sweep(noise=0.0), "times")
    rest = {
        "params_non_embedding": [2e8, 5e8], "tokens": [5e9, 2e10], "learning_rate": [0.001, 0.001],
        "batch_tokens": [524288.0, 524288.0], "loss": [2.9, 2.8],
    }  # fmt: skip
    more = {name: np.append(values, rest[name]) for name, values in table.items()}
    fits = fit_rule(more, "steplaw2025", bootstrap=0, starts=16, holdout=0).fits
    assert fits["learning_rate"].coefficients["alpha"] == pytest.approx(-0.713, rel=1e-3)
    for quantity, fitted in fits.items():
        assert fitted.n_runs == 9
        assert f"2 of 11 designs have one {quantity} only, which shows no best one: left out" in fitted.notes


def test_columns_that_follow_what_is_swept_separate_no_designs() -> None:
    table = without(step_sweep(noise=0.0), "times")
    once = fit_rule(table, "steplaw2025", bootstrap=0, starts=16, holdout=0).fits
    table["min_lr"] = table["learning_rate"] / 10
    table["steps"] = np.floor(table["tokens"] / table["batch_tokens"])
    again = fit_rule(table, "steplaw2025", bootstrap=0, starts=16, holdout=0).fits
    for quantity, fitted in again.items():
        assert fitted.coefficients == pytest.approx(once[quantity].coefficients, rel=1e-6)
        assert "min_lr, steps: follows what is swept, and separates no designs" in fitted.notes


def test_learning_rates_in_another_unit_are_noted() -> None:
    table = without(step_sweep(noise=0.0), "times")
    large = {**table, "learning_rate": 1e4 * table["learning_rate"]}
    notes = fit_rule(large, "steplaw2025", bootstrap=0, starts=16, holdout=0).fits["learning_rate"].notes
    assert any("are no learning rates of language models" in note for note in notes)
    with pytest.raises(InputError, match=r"--let 'learning_rate = POW\(10, learning_rate\)'"):
        fit_rule({**table, "learning_rate": np.log10(table["learning_rate"])}, "steplaw2025", bootstrap=0)
