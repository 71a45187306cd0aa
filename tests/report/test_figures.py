"""Every figure draws from the tables it documents, names what a table lacks, and keeps the house's hues and shapes."""

import functools
import json
import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest

from moelab.errors import InputError
from moelab.report import figures, theme
from moelab.report.dark import DARK_COLORS
from moelab.report.figures_tradeoffs import named_designs
from moelab.report.save import figure_svg

CELLS = [
    {"params_low": a, "params_high": 2 * a, "sparsity_low": low, "sparsity_high": high, "loss": 3 + low + a / 1e7}
    for a in (1e6, 2e6, 4e6)
    for low, high in ((0.0, 0.5), (0.5, 0.75))
]
BEST = [{"params_total": 3e6, "sparsity": 0.0}, {"params_total": 3e6, "sparsity": 0.5}]
Draw = Callable[..., Any]
# How each figure is drawn, the demo table it reads, and the columns it needs.
FIGURES: dict[str, tuple[Draw, str, str]] = {
    "learning_curves": (figures.learning_curves, "CURVE", "run label kind tokens loss"),
    "loss_by_size": (figures.loss_by_size, "RUNS", "params_active tokens loss kind label"),
    "predicted_measured": (figures.predicted_measured, "POINTS", "law measured predicted held_out label kind"),
    "holdout_error": (figures.holdout_error, "HOLDOUT", "law extrapolation error_rel covered"),
    "candidates": (figures.candidates, "CANDIDATES", "label law loss kind rank"),
    "verification": (figures.verification, "FINAL", "label kind law predicted measured"),
    "isoflop": (lambda table: figures.isoflop(table, table, table[2:3]), "SLICE", "x loss"),
    "loss_against": (
        lambda table: figures.loss_against(table, x_title="granularity", log=True),
        "AGAINST",
        "x loss law kind",
    ),
    "pareto": (figures.pareto, "FRONT", "loss params_total label kind on_front"),
    "surface": (
        lambda table: figures.surface(CELLS, table, BEST, BEST[:1]),
        "SIZED",
        "params_total sparsity loss",
    ),
    "serving_curve": (figures.serving_curve, "SERVING", "batch tokens_per_second time_per_output_token label"),
}
WORDS = {
    "learning_curves": ["training tokens", "loss (nats per token)", "300K", "dense d64 1.6M", "MoE"],
    "loss_by_size": ["active parameters", "training tokens", "lines: equal tokens", "43K · 8e"],
    "predicted_measured": ["hoffmann2022", "abnar2025", "measured loss", "error", "hollow: fitted · solid: held out"],
    "holdout_error": ["times the largest fitted run", "abnar2025", "+1%", "inside the predicted interval"],
    "candidates": ["32 experts top-4", "d72", "predicted loss (nats per token)", "abnar2025"],
    "verification": ["recommended", "best dense", "3.060", "3.150"],
    "isoflop": ["1e12 FLOPs", "active parameters", "diamond: optimum"],
    "loss_against": ["granularity", "hoffmann2022"],
    "pareto": ["total parameters", "serving cost", "big", "small", "ring: recommended"],
    "surface": ["total parameters", "sparsity", "0.75", "3M", "loss (nats per token)", "dashes: the best size"],
    "serving_curve": ["tokens per second", "time per output token (ms)", "MoE 64e top-8", "256"],
}


@pytest.fixture(params=FIGURES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def draw(name: str) -> Draw:
    return FIGURES[name][0]


@pytest.fixture
def table(name: str, demo: SimpleNamespace) -> list[dict[str, Any]]:
    return list(getattr(demo, FIGURES[name][1]))


@pytest.fixture(scope="session")
def drawn(demo: SimpleNamespace) -> Callable[[str], Any]:
    """A figure of its demo table by name, drawn once."""
    return functools.cache(lambda name: FIGURES[name][0](getattr(demo, FIGURES[name][1])))


@pytest.fixture
def columns(name: str) -> list[str]:
    return FIGURES[name][2].split()


def without(table: list[dict[str, Any]], column: str) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name != column} for row in table]


def test_renders_with_its_words(name: str, drawn: Callable[[str], Any]) -> None:
    drawn(name).to_dict(validate=True)
    svg = figure_svg(drawn(name))
    assert svg.startswith("<svg")
    assert [word for word in WORDS[name] if word not in svg] == []
    assert "NaN" not in svg
    assert "undefined" not in svg


@pytest.mark.parametrize("name", ["learning_curves", "verification", "pareto"], indirect=True)
def test_a_polars_table_draws_the_same(
    name: str, draw: Draw, table: list[dict[str, Any]], drawn: Callable[[str], Any]
) -> None:
    assert draw(pl.DataFrame(table)).to_dict() == drawn(name).to_dict()


def test_every_missing_column_is_named(draw: Draw, table: list[dict[str, Any]], columns: list[str]) -> None:
    for column in columns:
        with pytest.raises(InputError, match=rf"column {column} is missing"):
            draw(without(table, column))


def test_optional_columns_may_be_absent(draw: Draw, table: list[dict[str, Any]], columns: list[str]) -> None:
    bare = [{column: row[column] for column in columns} for row in table]
    assert figure_svg(draw(bare)).startswith("<svg")


def test_an_empty_table_is_refused(draw: Draw) -> None:
    with pytest.raises(InputError, match="no rows"):
        draw([])


def test_the_input_is_not_changed(demo: SimpleNamespace) -> None:
    before = json.dumps(demo.FINAL)
    figures.verification(demo.FINAL)
    assert json.dumps(demo.FINAL) == before


def test_a_run_without_a_finite_loss_is_left_out_and_said(demo: SimpleNamespace) -> None:
    rows = [dict(row) for row in demo.RUNS]
    rows[0]["loss"] = float("nan")
    rows[1]["loss"] = None
    assert "2 rows without a finite value not drawn" in figure_svg(figures.loss_by_size(rows))
    with pytest.raises(InputError, match="no row has a finite value"):
        figures.loss_by_size([dict(row, loss=None) for row in demo.RUNS])


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("loss", "low", "loss: expected a number"),
        ("kind", "sparse", "kind: expected dense or moe, got 'sparse'"),
        ("tokens", True, "tokens: expected a number"),
    ],
)
def test_wrong_cells_are_named(demo: SimpleNamespace, column: str, value: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        figures.loss_by_size([{**demo.RUNS[0], column: value}])


def test_not_a_table() -> None:
    with pytest.raises(InputError, match="expected a polars or pandas table or a list of dicts, got str"):
        figures.learning_curves("runs.csv")


@pytest.mark.parametrize(
    "name", ["learning_curves", "loss_by_size", "predicted_measured", "candidates", "pareto"], indirect=True
)
def test_moe_and_dense_keep_their_hues_and_shapes(name: str, drawn: Callable[[str], Any]) -> None:
    scales = _find(drawn(name).to_dict(), "scale")
    colors = [scale["range"] for scale in scales if scale.get("domain") == theme.KIND_ORDER]
    assert colors
    assert all(each in (theme.KIND_COLORS, theme.KIND_SHAPES) for each in colors)


@pytest.mark.parametrize("name", FIGURES)
def test_every_colour_has_a_counterpart_on_dark_pages(name: str, drawn: Callable[[str], Any]) -> None:
    colours = set(re.findall(r'"(#[0-9a-fA-F]{6}|white|black)"', json.dumps(drawn(name).to_dict(validate=False))))
    assert colours
    assert colours <= set(DARK_COLORS)


def test_a_law_keeps_its_colour_in_every_slice() -> None:
    slices = {
        "sparsity": [{"law": law, "sparsity": x, "loss": 3.0 - x} for law in ("a", "b") for x in (0.5, 0.9)],
        "granularity": [{"law": "b", "granularity": x, "loss": 3.0} for x in (1, 8)],
    }
    scales = [found["scale"] for found in _find(figures.budget_slices(slices).to_dict(), "color") if "scale" in found]
    assert len(scales) >= 2
    assert all(scale == scales[0] for scale in scales)


def test_long_curves_are_thinned_and_keep_their_ends() -> None:
    long = [{"run": "a", "label": "a", "kind": "moe", "tokens": 1000 * i, "loss": 6 / i} for i in range(1, 5001)]
    drawn = next(iter(figures.learning_curves(long).to_dict()["datasets"].values()))
    assert len(drawn) <= 121
    assert (drawn[0]["tokens"], drawn[-1]["tokens"]) == (1000, 5_000_000)


def test_a_single_point_draws(demo: SimpleNamespace) -> None:
    assert "<svg" in figure_svg(figures.learning_curves(demo.CURVE[:1]))
    assert "<svg" in figure_svg(figures.predicted_measured(demo.POINTS[:1]))
    assert "<svg" in figure_svg(figures.candidates(demo.CANDIDATES[:1]))


def test_names_in_the_trade_off_cover_no_mark() -> None:
    def row(label: str, size: float, loss: float) -> dict[str, Any]:
        return {"label": label, "params_total": size, "loss": loss, "on_front": True, "recommended": label == "here"}

    rows = [row("here", 1e9, 3.0), row("close by", 9e8, 3.001), row("far", 1e10, 3.5)]
    named = named_designs(rows, "params_total", 320 / 0.6, 640)
    assert [(each["label"], left, above) for each, left, above in named] == [
        ("here", False, False), ("far", True, False)
    ]  # fmt: skip
    between = [row("here", 1e9, 3.0), row("close by", 9e8, 3.001), row("beyond", 1.1e9, 3.001), row("far", 1e10, 3.5)]
    named = named_designs(between, "params_total", 320 / 0.6, 640)
    assert [(each["label"], above) for each, _, above in named] == [("here", True), ("far", False)]


def _find(node: Any, key: str) -> list[dict[str, Any]]:
    if isinstance(node, dict):
        here = [node[key]] if isinstance(node.get(key), dict) else []
        return here + [found for child in node.values() for found in _find(child, key)]
    return [found for child in node for found in _find(child, key)] if isinstance(node, list) else []


def test_the_axis_of_a_slice_stays_around_the_optimum() -> None:
    rows = [{"activation_rate": 0.01 * n, "loss": 2 + 0.01 * n, "law": "a"} for n in range(1, 8)]
    spike = {"activation_rate": 0.7, "loss": 9.0, "law": "a"}
    spec = figures.budget_slices({"activation_rate": [*rows, spike]}).to_dict()
    top = max(found["scale"]["domain"][1] for found in _find(spec, "y") if "scale" in found)
    assert 2.07 < top < 2.5
    assert "cut" in json.dumps(spec["title"])
    calm = figures.budget_slices({"activation_rate": rows}).to_dict()
    assert "title" not in calm
    assert figures.budget_slices({"sparsity": []}).to_dict()["title"]


def test_shares_are_printed_in_per_cent() -> None:
    rows = [{"label": "a", "kind": "moe", "params_total": size, "loss": loss, "on_front": True}
            for size, loss in ((1e9, 0.1), (2e9, 0.05))]  # fmt: skip
    spec = figures.pareto(rows, loss_title="excess compute", share=True).to_dict()
    assert all(found["axis"]["format"] == ".0%" for found in _find(spec, "y") if "axis" in found)
