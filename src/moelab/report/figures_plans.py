"""Figures of plans: candidate designs with their intervals, and predictions against the runs that tested them."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from moelab.report import theme
from moelab.report.tables import Row, read_rows, unique

LINE = 17  # pixels per law inside a row
REACH, LEAST_REACH = 6, 0.02  # of the loss axis of a slice: times the median's distance from the least loss, or nats


def candidates(table: Any, *, title: str = "") -> Any:
    """Planned designs from best to worst: predicted loss with its interval, a line per law.

    Columns: label, law, loss, low, high (may be null), kind (dense|moe), rank (1 is best).
    """
    rows, left_out = read_rows(
        table, "candidates", ["loss", "rank"], texts=["label", "law", "kind"], optional=["low", "high"]
    )  # fmt: skip
    rows.sort(key=lambda row: row["rank"])
    x = _Loss(rows, "loss", "predicted loss (nats per token)")
    return theme.finish(_interval_rows(rows, x), title, left_out)


def verification(table: Any, *, title: str = "") -> Any:
    """The final runs: what each law predicted, with its interval, against what was measured.

    Columns: label, kind (dense|moe), law, predicted, low, high (may be null), measured, seed_noise (half the spread
    between seeds, nats; null when unknown). The dark bar is the measured loss, the grey band its seed noise.
    """
    rows, left_out = read_rows(
        table, "verification", ["predicted", "measured"], texts=["label", "law", "kind"],
        optional=["low", "high", "seed_noise"],
    )  # fmt: skip
    for row in rows:
        noise = row["seed_noise"] or 0.0
        row |= {"measured_low": row["measured"] - noise, "measured_high": row["measured"] + noise}
    x = _Loss(rows, "predicted", "loss (nats per token)", ("measured_low", "measured_high"))
    order = unique(row["label"] for row in rows)
    runs = theme.data([next(row for row in rows if row["label"] == label) for label in order])
    size = LINE * len(unique(row["law"] for row in rows)) + 4
    tips = theme.tooltip(("label", "run", ""), ("measured", "measured", ".3f"), ("seed_noise", "seed noise", ".3f"))
    base = alt.Chart(runs).encode(_row(order), tooltip=tips)
    band = base.mark_bar(color="#d3d8de", size=size).encode(x.channel("measured_low"), x2=alt.X2("measured_high"))
    bar = base.mark_tick(color=theme.INK, thickness=2.5, size=size).encode(x.channel("measured"))
    number = theme.halo(
        base.mark_text(baseline="bottom", dy=-size / 2 - 1, fontWeight=600, fontSize=12).encode(
            x.channel("measured"), text=alt.Text("measured:Q", format=".3f")
        )
    )
    return theme.finish(_interval_rows(rows, x, under=[band, bar], over=number, gap=30), title, left_out)


def budget_slices(slices: Mapping[str, list[Row]], *, title: str = "") -> Any:
    """Best loss at the budget against activation rate, sparsity and granularity: a panel per axis, a line per law.

    Each row holds the axis by its name, `loss` and `law`; axes without rows are left out. The loss axis holds the
    neighbourhood of each law's optimum; lines that rise beyond it are cut there.
    """
    titles = {
        "activation_rate": "activation rate",
        "sparsity": "sparsity: share of experts left out",
        "granularity": "granularity",
    }
    laws = unique(row["law"] for rows in slices.values() for row in rows)
    panels = [_budget_slice(name, rows, titles[name], laws) for name, rows in slices.items() if rows]
    if not panels:
        return theme.finish(alt.Chart(theme.data([])).mark_point(), title or "No law varies along any axis here")
    cut = any(row["loss"] > upper_end(rows) for rows in slices.values() for row in rows)
    note = "lines that rise far above the least loss are cut" if cut else ""
    return theme.finish(alt.concat(*panels, columns=3, spacing=24), title, note=note)


def upper_end(rows: Sequence[Row]) -> float:
    """The loss up to which a panel is drawn: for the law that reaches highest, `REACH` times as far above its least
    loss as its median, or at most its largest loss."""
    ends = []
    for law in unique(row["law"] for row in rows):
        losses = [row["loss"] for row in rows if row["law"] == law]
        least = min(losses)
        ends.append(min(max(losses), least + max(REACH * (statistics.median(losses) - least), LEAST_REACH)))
    return max(ends)


def _budget_slice(name: str, rows: list[Row], title: str, laws: Sequence[str]) -> Any:
    """One panel; `laws` are those of all panels, so that a law keeps its colour."""
    color = theme.law_color(laws)
    end = upper_end(rows)
    y = alt.Y("loss:Q", scale=theme.scale([min(row["loss"], end) for row in rows]), title="best loss, nats per token")
    x = theme.quantity_x(name, rows, title, log=name == "activation_rate")
    base = alt.Chart(theme.data(rows)).encode(x, y, color)
    return alt.layer(base.mark_line(clip=True), base.mark_point(filled=True, clip=True), width=240, height=260)


class _Loss:
    """The loss axis that all marks of one figure share."""

    def __init__(self, rows: list[Row], field: str, title: str, more: tuple[str, ...] = ()) -> None:
        self.field = field
        self.scale = theme.scale([row[name] for row in rows for name in (field, "low", "high", *more)])
        self.axis = {"title": title, "tickCount": 6, "grid": True}

    def channel(self, field: str) -> Any:
        """The x channel of a loss column."""
        return alt.X(field, type="quantitative", scale=self.scale, axis=self.axis)


def _interval_rows(
    rows: list[Row], x: _Loss, under: Sequence[Any] = (), over: Sequence[Any] = (), gap: int = 18
) -> Any:
    """Horizontal intervals: a row per label, inside it a line per law that names itself at its right end."""
    order = unique(row["label"] for row in rows)
    laws = unique(row["law"] for row in rows)
    for row in rows:
        row["end"] = row[x.field] if row["high"] is None else max(row[x.field], row["high"])
        row["dy"] = (laws.index(row["law"]) - (len(laws) - 1) / 2) * LINE
    tips = theme.tooltip(
        ("label", "design", ""), ("law", "law", ""), (x.field, "predicted loss", ".3f"),
        ("low", "low", ".3f"), ("high", "high", ".3f"),
    )  # fmt: skip
    color, dy = theme.kind_color(rows), alt.expr("datum.dy")
    base = alt.Chart(theme.data(rows)).encode(_row(order), tooltip=tips)
    rule = base.mark_rule(strokeWidth=3.5, opacity=0.4, strokeCap="round", yOffset=dy).encode(
        x.channel("low"), color, x2=alt.X2("high")
    )
    point = base.mark_point(filled=True, size=80, opacity=1, yOffset=dy).encode(
        x.channel(x.field), color, theme.kind_shape(rows)
    )
    layers = [*under, rule, point]
    if len(laws) > 1:
        name = base.mark_text(align="left", dx=9, color=theme.MUTED, fontSize=11, yOffset=dy)
        layers += theme.halo(name.encode(x.channel("end"), text=alt.Text("law:N")))
    return alt.layer(*layers, *over).properties(width=520, height=alt.Step(LINE * len(laws) + gap))


def _row(order: list[str]) -> Any:
    axis = {"title": None, "labelColor": theme.INK, "grid": False, "labelOverlap": False}
    return alt.Y("label:N", sort=order, axis=axis)
