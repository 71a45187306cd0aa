"""IsoFLOP slices and surfaces: the optimum with its interval, and the refusals that keep it honest."""

import json

import numpy as np
import pytest

from moelab.errors import InputError
from moelab.fitting import isoflop_slice, isoflop_surface
from moelab.fitting.slice import compute_notes
from moelab.laws import get_law
from moelab.report.save import figure_svg


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
    assert found.optimum["low"] == pytest.approx(found.optimum["high"], rel=1e-3)


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
        (
            np.linspace(1, 9, 9),
            (np.linspace(1, 9, 9) - 12) ** 2,
            r"lowest point \(12\) lies above the points \(1 to 9\)",
        ),
        (np.linspace(1, 9, 9), (np.linspace(1, 9, 9) + 2) ** 2, "lies below the points"),
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


@pytest.mark.parametrize(
    ("options", "message"), [({"seed": -1}, "seed: must be"), ({"draws": 10**9}, "draws: must be")]
)
def test_bad_options_are_refused(options, message) -> None:
    with pytest.raises(InputError, match=message):
        isoflop_slice(np.arange(5.0), np.arange(5.0), **options)


def test_log_axis_needs_positive_values() -> None:
    with pytest.raises(InputError, match="must be positive for a logarithmic axis"):
        isoflop_slice(np.arange(5.0), np.arange(5.0), log=True)


def test_the_surface_finds_abnars_optimum_at_each_sparsity() -> None:
    """Runs at one compute, made from Abnar's law: the surface's N* per sparsity is the law's own."""
    from moelab.laws.optimum import optimum

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
    assert "diamond: the lowest point" in figure_svg(surface.plot())


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
    for seed in range(200):
        noisy = parabola(rate, 0.2) + 0.004 * rng.standard_normal(6)
        found = isoflop_slice(rate, noisy, log=True, draws=200, seed=seed).optimum
        inside.append(found["low"] <= 0.2 <= found["high"])
    assert 0.72 <= np.mean(inside) <= 0.88
