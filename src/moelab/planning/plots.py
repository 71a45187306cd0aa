"""Tables behind the figures of a plan, and the figures: candidates, trade-off, and the slices through the optimum."""

from typing import TYPE_CHECKING, Any

import numpy as np

from moelab.errors import InputError
from moelab.planning.candidate import Candidate
from moelab.planning.pareto import least_by_cell
from moelab.planning.ranking import Ranking

if TYPE_CHECKING:
    from moelab.planning.result import Plan

Row = dict[str, Any]
FIGURES = ("candidates", "pareto", "slices")
SLICES = ("activation_rate", "sparsity", "granularity")
BINS, FEWEST_BINS, PER_BIN = 24, 6, 200
"""Bins of a slice; of activation rates fewer where there are few designs: the best of a handful shows which sizes
exist, not what a law says."""


def figure(plan: "Plan", kind: str) -> Any:
    """An Altair chart: `candidates` with their intervals, the `pareto` front, or the `slices` through the optimum."""
    from moelab.report import figures

    if kind not in FIGURES:
        raise InputError(f"plot: no such figure {kind!r}; known: {', '.join(FIGURES)}")
    if kind == "candidates":
        return figures.candidates(candidate_rows(plan))
    if kind == "slices":
        return _slices(plan)
    traded = "lifetime price" if plan.budget.objective == "lifetime-cost" else "loss"
    counts = f"{traded} and size" if plan.best.serving is None else f"{traded}, size and price of serving"
    title = f"No other design is better in {counts} at once"
    rows = pareto_rows(plan)
    return figures.pareto(rows, loss_title=plan.loss_name, cost_title="$ per million tokens served", title=title)


def _slices(plan: "Plan") -> Any:
    """Best loss at the budget against activation rate, sparsity and granularity, a line per voting law."""
    import altair as alt

    from moelab.report import theme

    panels = []
    titles = {"activation_rate": "activation rate", "sparsity": "sparsity 1 - K/E", "granularity": "granularity"}
    for name, rows in plan.slices.items():
        if not rows:
            continue
        laws = list(dict.fromkeys(row["law"] for row in rows))
        color = alt.Color("law:N", scale=alt.Scale(domain=laws, range=theme.LAW_COLORS[: len(laws)]))
        y = alt.Y("loss:Q", scale=theme.scale([row["loss"] for row in rows]), title="best loss at the budget")
        x = theme.quantity_x(name, rows, titles[name], log=name == "activation_rate")
        base = alt.Chart(theme.data(rows)).encode(x, y, color)
        panels.append(alt.layer(base.mark_line(), base.mark_point(filled=True)).properties(width=240, height=260))
    return theme.finish(alt.concat(*panels, columns=3, spacing=24))


def candidate_rows(plan: "Plan") -> list[Row]:
    """A row per candidate and voting law: label, law, loss, low, high, kind, rank."""
    shown = [*plan.candidates]
    if plan.best_dense is not None and all(design.is_moe for design in shown):
        shown.append(plan.best_dense)
    return [
        {
            # The best dense design stands beside the ranked ones without a place among them.
            "label": f"{rank}. {design.label}" if rank <= len(plan.candidates) else f"best dense: {design.label}",
            "law": law,
            "loss": design.loss[law].value,
            "low": design.loss[law].low,
            "high": design.loss[law].high,
            "kind": "moe" if design.is_moe else "dense",
            "rank": rank,
        }
        for rank, design in enumerate(shown, 1)
        for law in plan.voting
        if design.loss[law].value is not None
    ]


def pareto_rows(plan: "Plan") -> list[Row]:
    """A row per design of the front, and the recommended one: label, kind, params_total, loss, on_front, recommended,
    dollars per million tokens served or None.

    The recommended design need not lie on the front: of designs that are one to the laws it is the one that Li et al.'s
    rules prefer, and with money as the objective another count decides.
    """
    best = next((design for design in plan.pareto if design.config == plan.best.config), None)
    return [
        {
            "label": design.label,
            "kind": "moe" if design.is_moe else "dense",
            "params_total": design.params_total,
            "loss": _loss(plan, design),
            "on_front": design is not plan.best or design is best,
            "recommended": design is (best or plan.best),
            "serving_cost": None if design.serving is None else design.serving["cost_per_million_tokens"],
        }
        for design in (*plan.pareto, *(() if best else (plan.best,)))
    ]


def _loss(plan: "Plan", design: Candidate) -> float:
    """The jury's loss; where several laws vote that cannot be averaged, the share of compute wasted; or the lifetime's
    dollars."""
    if plan.budget.objective == "lifetime-cost" and design.cost is not None:
        return design.cost["lifetime"]
    return design.regret_compute.value if design.mean_loss is None else design.mean_loss.value


def slice_rows(ranking: Ranking) -> dict[str, list[Row]]:
    """For activation rate, sparsity and granularity: the best loss at the budget among designs near each value, by law.

    Dense designs (rate 1, sparsity 0) are part of it; values are binned on the scale of the axis. A law that does not
    see granularity has no curve over it: what would show is which sizes the lattice happens to have.
    """
    lattice = ranking.field.lattice
    options = lattice.options[lattice.option]
    moe = options[:, 0] > 0
    columns = {
        "activation_rate": lattice.params_active_non_embedding / lattice.params_non_embedding,
        "sparsity": np.where(moe, 1 - options[:, 1] / np.maximum(options[:, 0], 1), 0.0),
        "granularity": np.where(moe, options[:, 1] + options[:, 2], 1).astype(float),
    }
    voting = [voice for juror in ranking.jury for voice in juror.voices]
    speaking = {
        name: [voice.id for voice in voting if name != "granularity" or voice.sees_granularity] for name in SLICES
    }
    return {
        name: [row for law in speaking[name] for row in _slice(name, columns[name], ranking.opinions[law].losses, law)]
        for name in SLICES
    }


def _slice(name: str, x: Any, losses: Any, law: str) -> list[Row]:
    """The best design of each bin; dense ones, at rate 1, have a bin of their own."""
    rate = name == "activation_rate"
    scale = np.log(x) if rate else x
    span = max(float(np.ptp(scale)), 1e-12)
    bins = min(BINS, max(FEWEST_BINS, len(x) // PER_BIN)) if rate else BINS
    cell = np.minimum((scale - float(scale.min())) / span * bins, bins - 1)
    if rate:
        cell = np.where(x >= 1, bins, cell)
    best = least_by_cell(cell.astype(np.int64), losses)
    return [{name: float(x[at]), "loss": float(losses[at]), "law": law} for at in best]
