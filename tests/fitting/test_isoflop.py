"""IsoFLOP slices and surfaces: the optimum with its interval, and the refusals that keep it honest."""

import json
from dataclasses import replace
from pathlib import Path

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies

from moelab.cli import main
from moelab.errors import InputError
from moelab.fitting import isoflop_budgets, isoflop_slice, isoflop_surface
from moelab.fitting.budget_groups import compute_notes
from moelab.fitting.full_fit import full_fit
from moelab.fitting.slice_kinds import mixed_notes
from moelab.laws import get_law
from moelab.laws.optimum import optimum
from moelab.runs.table import load_table

TABLES = Path(__file__).parents[1] / "fixtures" / "tables"


def parabola(x: np.ndarray, at: float, noise: float = 0.0) -> np.ndarray:
    return 2.5 + 0.04 * (np.log(x) - np.log(at)) ** 2 + noise * np.random.default_rng(0).standard_normal(len(x))


def test_the_vertex_is_found_exactly() -> None:
    rate = np.geomspace(0.05, 1, 7)
    found = isoflop_slice(rate, parabola(rate, 0.2), name="activation_rate", log=True)
    assert found.optimum["value"] == pytest.approx(0.2)
    assert found.loss_at_optimum["value"] == pytest.approx(2.5)
    assert found.curvature == pytest.approx(0.08)
    assert found.n_points == 7
    assert np.allclose(found.loss(rate), parabola(rate, 0.2))
    assert found.optimum["low"] <= 0.2 <= found.optimum["high"]
    assert found.optimum["low"] == pytest.approx(found.optimum["high"], rel=0.2)  # the law-shaped curve differs
    assert found.noise == pytest.approx(0, abs=1e-9)


def test_the_interval_covers_and_widens_with_noise() -> None:
    rate = np.tile(np.geomspace(0.05, 1, 7), 3)
    narrow = isoflop_slice(rate, parabola(rate, 0.2, 0.002), log=True)
    wide = isoflop_slice(rate, parabola(rate, 0.2, 0.01), log=True)
    assert wide.optimum["high"] / wide.optimum["low"] > narrow.optimum["high"] / narrow.optimum["low"]
    assert narrow.optimum["low"] < narrow.optimum["value"] < narrow.optimum["high"]


def test_linear_axis() -> None:
    x = np.linspace(1, 9, 9)
    found = isoflop_slice(x, 3 + (x - 4) ** 2)
    assert found.optimum["value"] == pytest.approx(4)
    assert found.curvature == pytest.approx(2)


@pytest.mark.parametrize(
    ("x", "loss", "message"),
    [
        (np.linspace(1, 9, 9), -((np.linspace(1, 9, 9) - 4) ** 2), "opens downward"),
        (np.array([1.0, 1, 2, 2, 3]), np.array([2.0, 2, 1, 1, 2]), "3 different values"),
        (np.linspace(1, 9, 9), 4 - 0.1 * np.linspace(1, 9, 9), "on a straight line"),
        (np.linspace(1, 9, 9), np.full(9, 3.0), "on a straight line"),
        (np.arange(6.0), 4 - 0.1 * np.arange(6.0) + 0.001 * np.array([0, 1, -1, 1, 0, 0.0]), "on a straight line"),
        (np.array([1.0, 2, 3, 4]), np.array([2.0, np.nan, 1, 2]), "must be finite"),
    ],
)
def test_refusals(x, loss, message) -> None:
    with pytest.raises(InputError, match=message):
        isoflop_slice(x, loss)


@pytest.mark.parametrize(("at", "side"), [(12, "above"), (-2, "below")])
def test_an_optimum_beyond_the_points_is_at_the_edge_with_an_open_interval(at, side) -> None:
    x = np.linspace(1, 9, 9)
    found = isoflop_slice(x, (x - at) ** 2 + 1)
    assert found.edge == side
    assert found.optimum["value"] == (9 if side == "above" else 1)
    assert found.optimum["high" if side == "above" else "low"] is None
    assert f"lies {side} these runs" in found.notes[-1]


@hypothesis.given(seed=strategies.integers(0, 10**6), points=strategies.integers(4, 7), slope=strategies.floats(0, 0.1))
def test_a_value_lies_inside_its_own_interval_open_or_not(seed, points, slope) -> None:
    """Few points that fall towards one end, where the curves disagree most."""
    rng, x = np.random.default_rng(seed), 2.0 ** np.arange(points)
    loss = 2.5 - slope * np.log(x) + 0.01 * np.log(x) ** 2 + 0.003 * rng.standard_normal(points)
    for log in (True, False):
        try:
            found = isoflop_slice(x, loss, name="granularity", log=log, draws=50).optimum
        except InputError:
            continue  # a straight line, or a curve that opens downward, has no value
        assert (found["low"] or 0) <= found["value"] <= (np.inf if found["high"] is None else found["high"])


def test_a_parabola_inside_runs_that_leave_the_optimum_open_above() -> None:
    loss = np.array([2.42064, 2.37059, 2.31553, 2.27252])
    found = isoflop_slice(np.array([1.0, 2, 4, 8]), loss, name="granularity").optimum
    assert found["high"] is None
    assert found["low"] <= found["value"] <= 8


SLICES = {
    "hoffmann2022": ("params_total", {}),
    "krajewski2024": ("params_non_embedding", {"granularity": 4}),
    "ludziejewski2025": ("params_active", {"n_experts": 8}),
    "abnar2025": ("params_total", {"sparsity": 0.9}),
    "fivefactor2025": ("params_total", {"activation_rate": 0.1, "active_experts": 8, "shared_share": 0.3}),
}


@hypothesis.given(
    name=strategies.sampled_from(sorted(SLICES)),
    half=strategies.floats(2, 16),
    shift=strategies.floats(-0.75, 0.75),
    points=strategies.integers(9, 24),
    log_flops=strategies.floats(19, 22),
)
@hypothesis.example(name="abnar2025", half=9.0, shift=0.0, points=9, log_flops=19.0)
def test_without_noise_the_interval_holds_a_laws_own_optimum(name, half, shift, points, log_flops) -> None:
    """For any law, half-width and place of the optimum in the window (see benchmarks/isoflop_coverage.py)."""
    law, (axis, settings) = get_law(name), SLICES[name]
    best = optimum(law, 10**log_flops, settings).values[axis]
    size = best * half**shift * np.geomspace(1 / half, half, points)
    table = law.at_compute(size, 10**log_flops, settings)
    found = isoflop_slice(table[axis], law.loss(None, table), name=axis, log=True, draws=100)
    assert (found.optimum["low"] or 0) <= best <= (found.optimum["high"] or np.inf)


@pytest.mark.parametrize("half", [2, 8])
def test_wide_and_narrow_windows_hold_the_optimum(half) -> None:
    table = load_table(TABLES / f"iso{half}.csv")
    for log in (True, False):
        found = isoflop_slice(table["params_total"], table["loss"], name="params_total", log=log)
        assert found.optimum["low"] <= 1.824e9 <= found.optimum["high"]
        assert found.optimum["high"] / found.optimum["low"] < 1.1


@pytest.mark.parametrize("log", [True, False])
def test_the_interval_covers_curve_and_window_on_published_runs(log) -> None:
    """arXiv 2406.19146 at 5e16: the paper's optimum, the lowest two runs, and cubic and quartic in ln N."""
    table = load_table(TABLES / "porian_5e16.csv")
    found = isoflop_slice(table["params_total"], table["loss"], name="params_total", log=log).optimum
    for place in (2.249e7, 2.867e7, 2.61e7, 2.5e7, 2.75e7):
        assert found["low"] <= place <= found["high"]
    assert found["high"] / found["low"] < 2


def test_repeats_give_the_noise_where_curves_miss_by_more() -> None:
    """Five sizes, four seeds each: 0.1 % between seeds, but a kink that no curve follows."""
    rng, x = np.random.default_rng(0), np.repeat(np.geomspace(1e8, 1.6e9, 5), 4)
    kink = np.repeat([0.02, -0.02, 0.02, -0.02, 0.02], 4)
    noise = 0.003 * rng.standard_normal(20)
    smooth = isoflop_slice(x, parabola(x, 4e8) + noise, log=True, name="params_total")
    assert smooth.repeats == 15
    assert smooth.noise == pytest.approx(0.003, rel=0.4)
    assert not any("repeats differ" in note for note in smooth.notes)
    kinked = isoflop_slice(x, parabola(x, 4e8) + noise + kink, log=True, name="params_total")
    within = noise.reshape(5, 4) - noise.reshape(5, 4).mean(axis=1, keepdims=True)
    assert kinked.noise == pytest.approx(np.sqrt(np.sum(within**2) / 15))
    assert any("times as much as repeats differ" in note for note in kinked.notes)


def test_a_surface_that_predicts_a_negative_loss_is_noted() -> None:
    rng = np.random.default_rng(3)
    n, s = rng.uniform(18, 22, 30), rng.uniform(0, 2, 30)
    surface = isoflop_surface(np.exp(n), -np.expm1(-s), 3 + 0.05 * (n - 20) ** 2 + 0.01 * s)
    assert surface.least() > 2
    assert not any("which none can have" in note for note in surface.notes)
    below = replace(surface, coefficients=surface.coefficients - np.r_[np.zeros(len(surface.coefficients) - 1), 3.5])
    assert below.least() < 0
    assert any("which none can have" in note for note in below.notes)


def test_a_share_is_located_by_what_is_in_use() -> None:
    sparsity = 1 - np.geomspace(0.02, 0.5, 9)
    loss = 2.5 + 0.03 * (np.log(1 - sparsity) - np.log(0.1)) ** 2
    found = isoflop_slice(sparsity, loss, name="sparsity")
    assert found.optimum["low"] <= 0.9 <= found.optimum["high"]


def law_runs(flops: np.ndarray, noise: float = 0.0) -> dict[str, np.ndarray]:
    """Nine sizes around the optimum of Chinchilla's law at each compute."""
    law, rows = get_law("hoffmann2022"), []
    for i, compute in enumerate(flops):
        best = optimum(law, compute).values["params_total"]
        rows.append(law.at_compute(best * np.geomspace(0.2, 6, 9) * (1 + 0.03 * i), compute, {}))
    table = {name: np.concatenate([row[name] for row in rows]) for name in ("params_total", "tokens")}
    off = np.exp(noise * np.random.default_rng(0).standard_normal(len(table["tokens"])))
    return {**table, "loss": law.loss(None, table) * off, "train_flops": np.repeat(flops, 9)}


def test_budgets_are_found_and_their_optima_grow_as_the_law_does() -> None:
    flops = np.array([1e18, 1e19, 1e20, 1e21])
    table = law_runs(flops, 0.002)
    table["train_flops"] = table["train_flops"] * np.random.default_rng(1).uniform(0.99, 1.005, 36)
    found = isoflop_budgets(table, "params_total", log=True)
    assert [round(np.log10(budget)) for budget in found.slices] == [18, 19, 20, 21]
    true = 0.2849 / (0.3392 + 0.2849)
    for name, exponent in (("params_total", true), ("tokens", 1 - true)):
        ends = found.exponents[name]
        assert ends["low"] <= exponent <= ends["high"]
        assert ends["high"] - ends["low"] < 0.2
    best = optimum(get_law("hoffmann2022"), 1e23).values
    for name, ends in found.at(1e23).items():
        assert ends["low"] <= best[name] <= ends["high"]
    whole = full_fit(table, "params_total")
    assert whole.exponent == pytest.approx(true, abs=0.03)
    assert whole.at(1e23) == pytest.approx(best["params_total"], rel=0.2)
    assert set(found.bias(whole)) == {max(found.slices), 10 * max(found.slices)}
    assert "e20 FLOPs" in found.plot().to_json()


def test_groups_by_a_column_that_mixes_computes_are_noted() -> None:
    size = np.tile(np.geomspace(1e8, 1e9, 9), 2)
    table = {"params_total": size, "tokens": np.repeat([1e9, 1e10], 9), "loss": parabola(size, 4e8)}
    mixed = isoflop_budgets(table, "params_total", by="tokens")
    assert all("spans a factor of 10" in found.notes[0] for found in mixed.slices.values())
    assert mixed.heading == "tokens"
    assert list(mixed.slices) == ["1e9", "1e10"]
    assert mixed.slice_notes()[0].startswith("at each budget: the runs are not of one compute: it spans a factor of 10")
    assert mixed.exponents == {}  # their optimum does not follow the compute
    assert [group["group"] for group in mixed.to_dict(None, None)["budgets"]] == ["1e9", "1e10"]
    found = isoflop_budgets(law_runs(np.array([1e18, 1e19])), "params_total").slices
    assert not any("one compute" in note for one in found.values() for note in one.notes)


def test_groups_of_one_compute_stay_apart() -> None:
    """Slices by another column: equal FLOPs, so no power law in them."""
    table = {**law_runs(np.array([1e18, 1e18])), "n_experts": np.repeat([8.0, 64.0], 9)}
    found = isoflop_budgets(table, "params_total", by="n_experts")
    assert set(found.slices) == {"8", "64"}
    assert (found.label("8"), found.exponents, found.flops["64"]) == ("n_experts 8", {}, pytest.approx(1e18))


def test_without_draws_the_power_law_has_no_interval() -> None:
    found = isoflop_budgets(law_runs(np.array([1e18, 1e19, 1e20])), "params_total", draws=0)
    ends = found.exponents["params_total"]
    assert ends["value"] == pytest.approx(0.2849 / (0.3392 + 0.2849), abs=0.01)
    assert (ends["low"], ends["high"]) == (None, None)
    shown = found.to_dict([1e21, 1e22], None)
    assert [each["train_flops"] for each in shown["at_each"]] == [1e21, 1e22]
    assert shown["at"] == shown["at_each"][0]


@pytest.mark.parametrize(
    ("change", "by", "message"),
    [
        ({"train_flops": None, "flops": 1e18}, "budget", "--let 'train_flops = flops'"),
        ({"train_flops": 1e18 * 1.1 ** np.arange(18.0)}, "budget", "18 runs in 18 budgets, at most 1 in one"),
        ({"train_flops": 1e18 + np.arange(18.0) * 1e15}, "train_flops", "has 18 values in 18 runs.*--by budget takes"),
    ],
)
def test_budgets_that_cannot_be_found_are_explained(change, by, message) -> None:
    table = {**law_runs(np.array([1e18, 1.02e18])), **change}
    table = {name: np.broadcast_to(values, 18) for name, values in table.items() if values is not None}
    if "flops" in table:
        del table["tokens"]
    with pytest.raises(InputError, match=message):
        isoflop_budgets(table, "params_total", by=by)


def test_a_column_of_budgets_wins() -> None:
    table = {**law_runs(np.array([1e18, 1.02e18])), "budget": np.repeat(["a", "b"], 9)}
    assert list(isoflop_budgets(table, "params_total", log=True).slices) == ["a", "b"]
    del table["budget"]
    assert len(isoflop_budgets(table, "params_total", log=True).slices) == 1
    assert len(isoflop_budgets(table, "params_total", log=True, tolerance=0.01).slices) == 2
    with pytest.raises(InputError, match="by: the table has no column 'nothing'"):
        isoflop_budgets(table, "params_total", by="nothing")
    with pytest.raises(InputError, match="fewer than two bounded optima"):
        isoflop_budgets(table, "params_total", log=True).at(1e20)


def test_what_is_no_column_is_refused() -> None:
    with pytest.raises(InputError, match="expected two columns of numbers, such as table"):
        isoflop_slice({"params_total": [1e8]}, "params_total", name="params_total")


@pytest.mark.parametrize(
    ("options", "message"), [({"seed": -1}, "seed: must be"), ({"draws": 10**9}, "draws: must be")]
)
def test_bad_options_are_refused(options, message) -> None:
    with pytest.raises(InputError, match=message):
        isoflop_slice(np.arange(5.0), np.arange(5.0), **options)


@pytest.mark.parametrize(
    ("name", "logged"), [("params_active", True), ("tokens", True), ("n_experts", True), ("activation_rate", False)]
)
def test_sizes_tokens_and_experts_are_taken_in_their_logarithm(name, logged) -> None:
    x = np.geomspace(1, 64, 9)
    for log in (None, logged, not logged):
        found = isoflop_slice(x, parabola(x, 8), name=name, log=log, draws=20)
        assert found.log is (logged if log is None else log)
    assert not isoflop_slice(x - 1, (x - 20) ** 2 / 1000 + 3, name=name, draws=20).log  # a zero has no logarithm


def test_log_axis_needs_positive_values() -> None:
    with pytest.raises(InputError, match="must be positive for a logarithmic axis"):
        isoflop_slice(np.arange(5.0), np.arange(5.0), log=True)


def test_the_surface_finds_abnars_optimum_at_each_sparsity() -> None:
    """Runs at one compute, made from Abnar's law: the surface's N* per sparsity is the law's own."""
    law = get_law("abnar2025")
    sparsity, spread = np.meshgrid([0.0, 0.5, 0.75, 0.9, 0.95], np.geomspace(0.25, 4, 9))
    best = {s: optimum(law, 1e20, {"sparsity": s}).values["params_total"] for s in np.unique(sparsity)}
    params = np.vectorize(best.get)(sparsity) * spread
    tokens = 1e20 / (6 * params * (1 - sparsity))
    loss = law.loss(None, {"params_total": params, "tokens": tokens, "sparsity": sparsity})
    loss = loss * np.exp(0.001 * np.random.default_rng(0).standard_normal(loss.shape))
    surface = isoflop_surface(params.ravel(), sparsity.ravel(), loss.ravel())
    assert surface.correlation > 0.98
    assert surface.n_points == 45
    for s in (0.0, 0.5, 0.9):
        found = surface.optimum_at(s)
        assert found["params_total"]["value"] == pytest.approx(best[s], rel=0.25)
        assert found["loss"]["value"] == pytest.approx(optimum(law, 1e20, {"sparsity": s}).loss, abs=0.01)
    whole = surface.optimum()
    assert whole["sparsity"]["value"] == pytest.approx(0.95)
    assert "sparsity" in surface.at_edge()
    with pytest.raises(InputError, match="sparsity"):
        surface.optimum_at(1.0)


def test_a_surface_draws_its_valley_through_the_optima() -> None:
    rng = np.random.default_rng(2)
    n, s = np.log(1e9) + rng.uniform(-2, 2, 40), rng.choice([0.0, 0.7, 1.4, 2.3], 40)
    surface = isoflop_surface(np.exp(n), 1 - np.exp(-s), 3 + 0.05 * (n - np.log(1e9)) ** 2 + 0.02 * (s - 1.5) ** 2)
    drawn = json.loads(surface.plot().to_json())
    tables = list(drawn["datasets"].values())
    runs = next(rows for rows in tables if len(rows) == 40)
    assert {row["sparsity"] for row in runs} == {float(value) for value in 1 - np.exp(-s)}
    valley = next(rows for rows in tables if len(rows) == 81)
    assert [row["params_total"] for row in valley] == pytest.approx([1e9] * 81, rel=0.02)
    assert "diamond: the lowest point" in json.dumps(drawn)  # the command's test renders it


def test_the_degree_is_chosen_by_cross_validation() -> None:
    rng = np.random.default_rng(1)
    params, sparsity = np.exp(rng.uniform(18, 22, 60)), 1 - np.exp(-rng.uniform(0, 3, 60))
    n, s = np.log(params), -np.log(1 - sparsity)
    loss = 3 + 0.05 * (n - 20) ** 2 - 0.1 * s + 1e-4 * rng.standard_normal(60)
    surface = isoflop_surface(params, sparsity, loss)
    assert surface.degrees[0] >= 2
    assert np.allclose(surface.loss(params, sparsity), loss, atol=1e-3)


def test_a_surface_knows_its_curvature_and_an_edge_it_almost_touches() -> None:
    rng = np.random.default_rng(2)
    n, s = np.log(1e9) + rng.uniform(-2, 2, 80), rng.uniform(0, 3, 80)
    loss = 3 + 0.05 * (n - np.log(1e9)) ** 2 + 0.02 * (s - 2.97) ** 2
    surface = isoflop_surface(np.exp(n), 1 - np.exp(-s), loss)
    assert surface.curvature("params_total") == pytest.approx(0.1, rel=0.01)
    assert surface.curvature("sparsity") == pytest.approx(0.04, rel=0.01)
    assert surface.at_edge() == ("sparsity",)


def test_the_wrong_axis_is_noted() -> None:
    rate = np.geomspace(0.02, 1, 9)
    wrong = isoflop_slice(rate, parabola(rate, 0.3), name="activation_rate")
    assert wrong.r_squared < 0.99
    assert wrong.notes[-1].endswith("add --log")
    right = isoflop_slice(rate, parabola(rate, 0.3), name="activation_rate", log=True)
    assert right.r_squared == pytest.approx(1)
    assert right.notes == ()


def test_runs_of_several_computes_are_noted() -> None:
    assert compute_notes({"train_flops": np.array([1e18, 1.1e18])}) == []
    assert compute_notes({"loss": np.array([1.0])}) == []
    assert "a factor of 100" in compute_notes({"train_flops": np.array([1e18, 1e20])})[0]
    apart = {"params_active": np.array([1e8, 1e9]), "tokens": np.array([1e9, 1e9])}
    assert "a factor of 10" in compute_notes(apart)[0]


def test_too_small_surfaces_are_refused() -> None:
    with pytest.raises(InputError, match="a surface needs 8 runs"):
        isoflop_surface(np.ones(9) * 1e9, np.linspace(0, 0.9, 9), np.ones(9))
    with pytest.raises(InputError, match="at least 0 and below 1"):
        isoflop_surface(np.ones(9) * 1e9, np.ones(9), np.ones(9))


def test_a_slice_draws_itself() -> None:
    rate = np.geomspace(0.05, 1, 7)
    chart = isoflop_slice(rate, parabola(rate, 0.2, 0.002), name="activation_rate", log=True).plot()
    assert "activation_rate" in chart.to_json()


def test_the_interval_covers_what_it_claims_with_few_points() -> None:
    rate, rng = np.geomspace(0.05, 1, 6), np.random.default_rng(7)
    inside = []
    for seed in range(25):
        noisy = parabola(rate, 0.2) + 0.004 * rng.standard_normal(6)
        found = isoflop_slice(rate, noisy, log=True, draws=100, seed=seed).optimum
        inside.append(found["low"] <= 0.2 <= found["high"])
    assert np.mean(inside) >= 0.75


def test_equal_losses_show_no_optimum() -> None:
    with pytest.raises(InputError, match="params_active: the points lie on a straight line: all 8 losses are 3"):
        isoflop_slice(np.geomspace(1e8, 1e9, 8), np.full(8, 3.0), name="params_active")


def test_several_architectures_in_one_slice_are_noted() -> None:
    table = {
        "params_active": np.tile(np.geomspace(1e8, 1e9, 5), 3), "n_experts": np.repeat([1, 8, 64], 5),
        "granularity": np.ones(15),
    }  # fmt: skip
    assert mixed_notes(table, "params_active", None) == [
        "n_experts has 3 values, each with a slice of its own in params_active: take each with --by n_experts"
    ]
    assert 'keep one with --where "n_experts = 1"' in mixed_notes(table, "params_active", "budget")[0]
    assert mixed_notes(table, "params_active", "n_experts") == []
    assert mixed_notes(table, "n_experts", None) == []


@pytest.mark.parametrize("named", [True, False])
def test_dense_and_moe_runs_on_one_curve_are_named_with_what_keeps_one_kind(named: bool) -> None:
    """Three dense and three MoE runs a budget, the MoE ones with more experts where they are larger."""
    budgets = np.repeat([1e18, 1e19, 1e20], 6)
    dense = np.tile([True, True, True, False, False, False], 3)
    active = np.tile([60.0, 140.0, 330.0, 58.0, 110.0, 230.0], 3) * np.sqrt(budgets / 1e18) * 1e6
    total = np.where(dense, active, 4 * active)
    columns = {"params_active": active, "params_total": total, "tokens": budgets / (6 * active)}
    columns |= {"n_experts": np.where(dense, 1.0, np.tile([1, 1, 1, 8, 16, 32], 3))} if named else {}
    kept = "n_experts > 1" if named else "params_active < 0.8 * params_total"
    (note,) = mixed_notes(columns, "params_active", "budget")
    assert note.startswith("9 dense and 9 MoE runs lie on one curve in params_active")
    assert f'--where "{kept}"' in note
    assert note.endswith("at most 3 of a kind share a slice, which needs 4")
    assert "needs 4" not in mixed_notes(columns, "params_active", None)[0]
    for kind in (dense, ~dense):
        assert mixed_notes({name: values[kind] for name, values in columns.items()}, "params_active", "budget") == []


def test_experts_that_follow_the_axis_are_no_mixture() -> None:
    """Activation and experts that change along the axis are what is swept, the dense end included."""
    active = np.geomspace(1e8, 8e8, 5)
    swept = {"params_active": active, "params_total": np.full(5, 8e8), "n_experts": np.array([32.0, 16, 8, 4, 1])}
    assert mixed_notes(swept, "params_active", None) == []
    crossed = {"params_active": np.tile(active, 2)[:6], "n_experts": np.array([8.0, 16, 8, 32, 16, 8])}
    (note,) = mixed_notes(crossed, "params_active", None)
    assert note.startswith("n_experts has 3 values on one curve in params_active")
    assert 'keep one with --where "n_experts = 8"' in note


SEEDS = np.tile(np.arange(6.0), 5)
EXPERTS = np.repeat([2.0, 4.0, 8.0, 16.0, 64.0], 6)


def test_six_seeds_at_each_place_have_a_loss_at_the_optimum(tmp_path: Path) -> None:
    """The six nearest runs are then one place; the curve goes through the six nearest places instead."""
    noise = 0.002 * np.random.default_rng(0).standard_normal(30)
    kinked = np.repeat([3.0, 2.9, 2.70, 2.85, 2.9], 6) + noise
    found = isoflop_slice(EXPERTS, kinked, name="n_experts")
    assert found.optimum["low"] < found.optimum["value"] < found.optimum["high"]
    places = np.unique(EXPERTS)
    means = kinked.reshape(5, 6).mean(axis=1)
    u = np.log(places / found.optimum["value"])
    assert found.loss_at_optimum["value"] == pytest.approx(np.polyval(np.polyfit(u, means, 3), 0.0), abs=1e-9)
    path = tmp_path / "six.csv"
    rows = [f"{e:g},{s:g},{loss!r}" for e, s, loss in zip(EXPERTS, SEEDS, kinked.tolist(), strict=True)]
    path.write_text("\n".join(["n_experts,seed,loss", *rows]) + "\n")
    for more in ([], ["--log"]):
        with pytest.raises(SystemExit) as done:
            main(["isoflop", str(path), "--x", "n_experts", *more])
        assert done.value.code == 0


@pytest.mark.parametrize(
    ("name", "x", "ends"),
    [
        ("n_experts", np.array([1.0, 2, 4, 8, 16, 32]), (1.0, np.inf)),
        ("top_k", np.array([1.0, 2, 4, 8, 16, 32]), (1.0, np.inf)),
        ("activation_rate", np.array([1.0, 2, 4, 8, 16, 32]) / 32, (0.0, 1.0)),
        ("sparsity", 1 - np.array([1.0, 2, 4, 8, 16, 32]) / 32, (0.0, 1.0)),
    ],
)
def test_no_end_lies_where_the_axis_has_no_place(name: str, x: np.ndarray, ends: tuple[float, float]) -> None:
    """A flat slice whose curves reach far beyond the runs."""
    cut = []
    for seed in range(12):
        loss = 3 + 0.02 * np.random.default_rng(seed).standard_normal((4, 6)) + 0.002 * np.linspace(-1, 1, 6) ** 2
        try:
            found = isoflop_slice(np.tile(x, 4), loss.ravel(), name=name, draws=200)
        except InputError:
            continue
        shown = [found.optimum["low"], found.optimum["high"]]
        shown += [end for *_, optimum in found.curve_rows() for end in (optimum["low"], optimum["high"])]
        assert all(end is None or ends[0] <= end <= ends[1] for end in shown)
        known = {"p10": found.optimum["low"], "p90": found.optimum["high"]}
        out = [each for each, end in known.items() if end is not None and not x.min() <= end <= x.max()]
        assert any("beyond these runs, " in note for note in found.notes) == bool(out)
        cut += [end for end in shown if end in ends]
    assert cut


def test_curves_in_a_share_itself_have_their_optimum_in_the_share() -> None:
    """The axis of a share is -ln(1 - S): a parabola in S has its vertex there, not at ln S."""
    x = np.array([0.0, 0.25, 0.5, 0.7, 0.8, 0.9, 0.95])
    found = isoflop_slice(x, 3 + 0.2 * (x - 0.6) ** 2, name="sparsity")
    (curve,) = (row for row in found.curve_rows() if row[:2] == ("parabola in the axis itself", "all"))
    assert curve[4]["value"] == pytest.approx(0.6, abs=1e-6)
    assert 0.5 < found.optimum["low"] < 0.6 < found.optimum["high"] < 0.85
