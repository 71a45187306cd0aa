"""Figures of trained runs: their learning curves, and their losses by size and tokens."""

import math
from typing import Any

import altair as alt

from moelab.quantities import format_number
from moelab.report import theme
from moelab.report.labels import Point, place_names
from moelab.report.tables import Row, read_rows, unique

MAX_POINTS_PER_RUN = 120
MAX_LABELS = 14
PANEL = (350, 300)
"""Width and height of one of two panels, pixels."""


def learning_curves(curve: Any, *, title: str = "") -> Any:
    """Loss against training tokens, one line per run.

    Columns: run (id), label, kind (dense|moe), tokens, loss (nats per token). Long curves are thinned to 120 points
    each, evenly in log tokens. Up to a dozen runs are labelled at their ends; of more, the best of each kind.
    """
    rows, left_out = read_rows(curve, "learning_curves", ["loss"], positive=["tokens"], texts=["run", "label", "kind"])
    runs = [_thin([row for row in rows if row["run"] == run]) for run in unique(row["run"] for row in rows)]
    rows = [row for run in runs for row in run]
    ends = _labelled([run[-1] for run in runs])
    y_scale = theme.scale([row["loss"] for row in rows], share=0.04)
    low, high = y_scale["domain"]
    for row, place in zip(
        ends, theme.spread_labels([row["loss"] for row in ends], low, high, theme.HEIGHT), strict=True
    ):
        row["y_label"] = place
    hover = alt.selection_point(fields=["run"], on="pointerover", clear="pointerout", empty=True, nearest=True)
    x = theme.quantity_x("tokens", rows, "training tokens", log=True)
    y = alt.Y("loss:Q", scale=y_scale, title="loss (nats per token)")
    color = theme.kind_color(rows)
    lines = (
        alt.Chart(theme.data(rows))
        .mark_line(strokeWidth=1.4)
        .encode(x, y, color, detail=alt.Detail("run:N"), opacity=alt.condition(hover, alt.value(0.85), alt.value(0.12)))
    )
    points = (
        alt.Chart(theme.data(rows))
        .mark_point(opacity=0, size=60)
        .encode(x, y, tooltip=theme.tooltip(("label", "run", ""), ("tokens", "tokens", ".3s"), ("loss", "loss", ".3f")))
        .add_params(hover)
    )
    dots = (
        alt.Chart(theme.data([run[-1] for run in runs]))
        .mark_point(filled=True, size=42, opacity=1)
        .encode(x, y, color, theme.kind_shape(rows))
    )
    text = theme.halo(
        alt.Chart(theme.data(ends))
        .mark_text(align="left", dx=8)
        .encode(x, alt.Y("y_label:Q", scale=y_scale), color, text=alt.Text("label:N"))
    )
    chart = alt.layer(lines, dots, *text, points, width=theme.WIDTH, height=theme.HEIGHT)
    return theme.finish(chart, title, left_out)


def _thin(rows: list[Row]) -> list[Row]:
    """At most 120 rows of one run, evenly spaced in log tokens; the first and the last stay."""
    rows = sorted(rows, key=lambda row: row["tokens"])
    if len(rows) <= MAX_POINTS_PER_RUN:
        return rows
    first, last = math.log(rows[0]["tokens"]), math.log(rows[-1]["tokens"])
    bins = {round((math.log(row["tokens"]) - first) / (last - first) * (MAX_POINTS_PER_RUN - 2)): row for row in rows}
    return unique_rows([rows[0], *bins.values()])


def unique_rows(rows: list[Row]) -> list[Row]:
    """Rows without repeated objects, in order."""
    return list({id(row): row for row in rows}.values())


def _labelled(ends: list[Row]) -> list[Row]:
    """Copies of the end points that carry a label."""
    if len(ends) > MAX_LABELS:
        best = [
            min((e for e in ends if e["kind"] == kind), key=lambda e: e["loss"]) for kind in theme.present_kinds(ends)
        ]
        ends = [end for end in ends if end in best]
    return [dict(end) for end in ends]


def loss_by_size(runs: Any, *, title: str = "") -> Any:
    """Two panels: loss against active parameters (a line per token count) and against tokens (a line per model).

    Columns: params_active, tokens, loss, kind (dense|moe), label; optional n_experts, params_total. Runs that repeat
    a design with another seed are drawn as points; the line goes through their mean.
    """
    rows, left_out = read_rows(
        runs, "loss_by_size", ["loss"], positive=["params_active", "tokens"], texts=["kind", "label"],
        optional=["n_experts", "params_total"],
    )  # fmt: skip
    y_scale = theme.scale([row["loss"] for row in rows])
    for row in rows:
        row["model"] = f"{row['kind']} {row['params_active']} {row['params_total']} {row['n_experts']}"
    by_size = _panel(
        rows, "params_active", "active parameters", ["kind", "n_experts", "tokens"], "lines: equal tokens", y_scale
    )
    by_tokens = _panel(rows, "tokens", "training tokens", ["model"], "lines: one model, by active parameters", y_scale)
    return theme.finish(alt.concat(by_size, by_tokens, columns=2, spacing=28), title, left_out)


def _panel(rows: list[Row], x_field: str, x_title: str, group: list[str], heading: str, y_scale: Any) -> Any:
    means = _means(rows, x_field, group)
    lines: dict[tuple[Any, ...], list[Row]] = {}
    for row in means:
        lines.setdefault(tuple(row[g] for g in group), []).append(row)
    joined = [row for line in lines.values() if len(line) > 1 for row in line]  # a line of one point is not seen
    x = theme.quantity_x(x_field, rows, x_title, log=True)
    y = alt.Y("loss:Q", scale=y_scale, title="loss (nats per token)")
    color, shape = theme.kind_color(rows), theme.kind_shape(rows)
    line = alt.Chart(theme.data(joined)).mark_line(strokeWidth=1.5, opacity=0.55)
    points = alt.Chart(theme.data(rows)).mark_point(filled=True, size=58, opacity=0.9).encode(
        x, y, color, shape,
        tooltip=theme.tooltip(("label", "run", ""), ("kind", "kind", ""), ("params_active", "active parameters", ".3s"),
                              ("tokens", "tokens", ".3s"), ("loss", "loss", ".3f")),
    )  # fmt: skip
    layers = [line.encode(x, y, color, detail=[alt.Detail(f"{g}:N") for g in group])] if joined else []
    if len(lines) <= MAX_LABELS:
        x_name = alt.X("x_name:Q", scale=theme.scale([row[x_field] for row in rows], log=True))
        names = _named(list(lines.values()), rows, x_field, y_scale["domain"])
        text = alt.Chart(theme.data(names)).mark_text(align="left", fontSize=11)
        layers += theme.halo(text.encode(x_name, alt.Y("y_name:Q", scale=y_scale), color, text=alt.Text("text:N")))
    panel = alt.layer(*layers, points)
    return panel.properties(width=PANEL[0], height=PANEL[1], title=theme.panel_title(heading, quiet=True))


def _named(lines: list[list[Row]], rows: list[Row], x_field: str, losses: list[float]) -> list[Row]:
    """The last point of every line with its name and the place for it, `x_name` and `y_name`; the best come first."""
    (low, high), (bottom, top) = theme.padded([row[x_field] for row in rows], log=True), losses
    width, height = PANEL

    def place(row: Row) -> Point:
        return math.log(row[x_field] / low) / math.log(high / low) * width, (row["loss"] - bottom) / (
            top - bottom
        ) * height

    lines = [sorted(line, key=lambda row: float(row[x_field])) for line in lines]
    lasts = sorted((dict(line[-1]) for line in lines), key=lambda row: float(row["loss"]))
    names = [_line_name(row, x_field) for row in lasts]
    drawn = [[place(row) for row in line] for line in lines]
    found = place_names([place(row) for row in lasts], names, [place(row) for row in rows], drawn, width, height)
    return [
        {**row, "text": name, "x_name": low * (high / low) ** (at[0] / width),
         "y_name": bottom + at[1] / height * (top - bottom)}
        for row, name, at in zip(lasts, names, found, strict=True) if at is not None
    ]  # fmt: skip


def _line_name(row: Row, x_field: str) -> str:
    """What stays equal along a line: its tokens, or its active parameters; and the experts of a MoE."""
    name = format_number(row["tokens" if x_field == "params_active" else "params_active"])
    return f"{name} · {row['n_experts']}e" if (row["n_experts"] or 1) > 1 else name


def _means(rows: list[Row], x_field: str, group: list[str]) -> list[Row]:
    """One row per design: the mean loss over its seeds."""
    cells: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        cells.setdefault((*(row[g] for g in group), row["model"], row[x_field]), []).append(row)
    return [{**cell[0], "loss": sum(r["loss"] for r in cell) / len(cell)} for cell in cells.values()]
