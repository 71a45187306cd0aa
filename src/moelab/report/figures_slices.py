"""Figures of slices: isoFLOP parabolas with their optima, and loss along one axis under each law."""

from typing import Any

import altair as alt

from moelab.report import theme
from moelab.report.tables import Row, read_rows, unique
from moelab.report.titles import titled


def isoflop(
    points: Any,
    curve: Any,
    optimum: Any = None,
    *,
    x_title: str = "active parameters",
    log: bool = True,
    title: str = "",
) -> Any:
    """Runs of equal compute, the curve through each group, and its optimum with the interval.

    Columns. points: x, loss, group (optional: what stays equal, e.g. "1e15 FLOPs"). curve: x, loss, group. optimum
    (may be None): x, low, high (may be null), loss, group. On a log axis every x must be positive.
    """
    x_title = titled(x_title)
    name = {"positive": ["x"]} if log else {}
    need = ["loss"] if log else ["loss", "x"]
    rows, left_out = read_rows(points, "isoflop points", need, optional_texts=["group"], **name)
    line, _ = read_rows(curve, "isoflop curve", need, optional_texts=["group"], **name)
    best: list[Row] = []
    if optimum is not None:
        best, _ = read_rows(
            optimum, "isoflop optimum", need, optional_texts=["group"], optional=["low", "high"], **name
        )
    groups = unique(row["group"] for row in rows)
    reach = rows + [{"x": row[end]} for row in best for end in ("x", "low", "high") if row[end] is not None]
    x_scale = theme.scale([row["x"] for row in reach], log)
    x_axis = theme.axis([row["x"] for row in reach], x_title, log, grid=False)
    y_scale = theme.scale([row["loss"] for row in (*rows, *best)])
    y = alt.Y("loss:Q", scale=y_scale, title="loss (nats per token)")
    colors = {"domain": groups, "range": theme.ordered_colors(len(groups))}
    color = alt.Color("group:N", scale=colors, legend=None)
    ends = [
        max((row for row in line if row["group"] == group), key=lambda row: row["x"], default=None) for group in groups
    ]
    named = [dict(row) for row in ends if row is not None and row["group"]]
    low, high = y_scale["domain"]
    for row, place in zip(named, theme.spread_labels([r["loss"] for r in named], low, high, theme.HEIGHT), strict=True):
        row["y_label"] = place

    def x(field: str = "x") -> Any:
        return alt.X(field, type="quantitative", scale=x_scale, axis=x_axis)

    tips = theme.tooltip(("group", "group", ""), ("x", x_title, ".4~s"), ("loss", "loss", ".4f"))
    layers = [
        alt.Chart(theme.data(line))
        .mark_line(strokeWidth=1.6, opacity=0.7, clip=True)
        .encode(x(), y, color, detail=alt.Detail("group:N")),
        alt.Chart(theme.data(rows)).mark_point(filled=True, size=52, opacity=0.9).encode(x(), y, color, tooltip=tips),
    ]
    if best:
        more = [*tips, *theme.tooltip(("low", "low", ".4~s"), ("high", "high", ".4~s"))]
        base = alt.Chart(theme.data(best))
        layers.append(
            base.mark_rule(strokeWidth=4, opacity=0.35, strokeCap="round").encode(x("low"), y, color, x2=alt.X2("high"))
        )
        layers.append(
            base.mark_point(shape="diamond", filled=True, size=150, opacity=1, stroke="white", strokeWidth=1.2).encode(
                x(), y, color, tooltip=more
            )
        )
    text = alt.Chart(theme.data(named)).mark_text(align="left", dx=9)
    if named:
        layers += theme.halo(text.encode(x(), alt.Y("y_label:Q", scale=y_scale), color, text=alt.Text("group:N")))
    note = "diamond: optimum, with its 80 % interval" if best else ""
    return theme.finish(alt.layer(*layers, width=theme.WIDTH, height=theme.HEIGHT), title, left_out, note)


def loss_against(
    table: Any,
    *,
    x_title: str,
    log: bool = False,
    measured: Any = None,
    title: str = "",
) -> Any:
    """Loss along one axis (activation rate, sparsity, granularity, ...): a panel per law, a line per kind.

    Columns. table: x, loss, low, high (may be null), law, kind (dense|moe). measured (may be None): x, loss, kind;
    these runs are drawn as points in every panel. On a log axis every x must be positive.
    """
    x_title = titled(x_title)
    name = {"positive": ["x"]} if log else {}
    need = ["loss"] if log else ["loss", "x"]
    rows, left_out = read_rows(table, "loss_against", need, texts=["law", "kind"], optional=["low", "high"], **name)
    runs: list[Row] = []
    if measured is not None:
        runs, _ = read_rows(measured, "loss_against measured", need, texts=["kind"], **name)
    laws = unique(row["law"] for row in rows)
    columns = min(3, len(laws))
    width = {1: 640, 2: 350, 3: 228}[columns]
    y_scale = theme.scale([row.get(end) for row in (*rows, *runs) for end in ("loss", "low", "high")])
    x_values = [row["x"] for row in (*rows, *runs)]
    x = alt.X("x:Q", scale=theme.scale(x_values, log), axis=theme.axis(x_values, x_title, log, grid=False))
    panels = []
    for law in laws:
        mine = theme.data(sorted((row for row in rows if row["law"] == law), key=lambda row: row["x"]))
        color, shape = theme.kind_color([*rows, *runs]), theme.kind_shape([*rows, *runs])
        tips = theme.tooltip(("kind", "kind", ""), ("x", x_title, ".3~s"), ("loss", "loss", ".3f"),
                             ("low", "low", ".3f"), ("high", "high", ".3f"))  # fmt: skip
        y = alt.Y("loss:Q", scale=y_scale, title="loss (nats per token)")
        base = alt.Chart(mine)
        layers = [
            base.mark_area(opacity=0.14).encode(x, alt.Y("low:Q", scale=y_scale), color, y2=alt.Y2("high")),
            base.mark_line(strokeWidth=2).encode(x, y, color),
            base.mark_point(filled=True, size=90, opacity=0).encode(x, y, color, shape, tooltip=tips),
        ]
        if runs:
            layers.append(
                alt.Chart(theme.data(runs))
                .mark_point(filled=True, size=55)
                .encode(x, y, color, shape, tooltip=tips[:3])
            )
        heading: dict[str, Any] = {"title": theme.panel_title(law)} if len(laws) > 1 else {}
        panels.append(alt.layer(*layers, width=width, height=270, **heading))
    return theme.finish(alt.concat(*panels, columns=columns, spacing=24), title, left_out)
