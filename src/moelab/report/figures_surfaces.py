"""The figure of an isoFLOP surface: loss over size and sparsity at one compute, with its runs and its valley."""

import math
from typing import Any

import altair as alt

from moelab.report import theme
from moelab.report.tables import Row, read_rows, unique

BANDS = 12
"""Steps of colour: their edges are the surface's contours."""
SPARSITIES = (0.0, 0.5, 0.75, 0.875, 0.9375, 0.96875, 0.984375, 0.9921875, 0.99609375)
"""Labels of the sparsity axis, which is linear in -ln(1 - S), where the runs have more than `FEW` of their own."""
FEW = 8


def surface(cells: Any, runs: Any, valley: Any = None, optimum: Any = None, *, title: str = "") -> Any:
    """Loss in bands of colour over total parameters and sparsity, the runs in the same colours, the best size per
    sparsity as a line and the lowest point as a diamond.

    Columns. cells: params_low, params_high, sparsity_low, sparsity_high, loss of one rectangle. runs: params_total,
    sparsity, loss as measured. valley (may be None): params_total, sparsity. optimum (may be None): params_total,
    sparsity, one row. Colours span the measured losses; where the surface leaves them it keeps the last colour.
    """
    rows, _ = read_rows(
        cells, "surface", ["loss", "sparsity_low", "sparsity_high"], positive=["params_low", "params_high"]
    )
    seen, left_out = read_rows(runs, "surface runs", ["loss", "sparsity"], positive=["params_total"])
    for row in rows:
        row |= {"s_low": _scaled(row["sparsity_low"]), "s_high": _scaled(row["sparsity_high"])}
    losses = [row["loss"] for row in seen]
    edges = [*(row["s_low"] for row in rows), *(row["s_high"] for row in rows)]
    sizes = [*(row["params_low"] for row in rows), *(row["params_high"] for row in rows)]
    y_scale = alt.Scale(domain=[min(edges), max(edges)], nice=False, zero=False)
    x_scale = alt.Scale(type="log", domain=[min(sizes), max(sizes)], nice=False)
    x_axis = theme.axis(sizes, "total parameters", True, grid=False)
    own = unique(row["sparsity"] for row in seen)
    marked = own if len(own) <= FEW else SPARSITIES
    ticks = [_scaled(value) for value in marked if min(edges) - 1e-9 <= _scaled(value) <= max(edges) + 1e-9]
    y_axis = alt.Axis(title="sparsity", values=ticks, labelExpr="format(1 - exp(-datum.value), '.3~g')", grid=False)
    bands = alt.Scale(
        type="quantize",
        scheme=alt.SchemeParams("viridis", count=BANDS),
        domain=[min(losses), max(losses)],
        reverse=True,
    )
    legend = alt.Legend(title="loss (nats per token)", format=".3f", orient="right", direction="vertical")
    color = alt.Color("loss:Q", scale=bands, legend=legend)

    def place(x: str = "params_total", y: str = "s") -> tuple[Any, Any]:
        return alt.X(f"{x}:Q", scale=x_scale, axis=x_axis), alt.Y(f"{y}:Q", scale=y_scale, axis=y_axis)

    tips = theme.tooltip(("params_total", "total parameters", ".4~s"), ("sparsity", "sparsity", ".4~g"),
                         ("loss", "measured loss", ".4f"))  # fmt: skip
    ground = alt.Chart(theme.data(rows)).mark_rect(strokeWidth=0.6).encode(
        *place("params_low", "s_low"), x2=alt.X2("params_high"), y2=alt.Y2("s_high"), color=color,
        stroke=alt.Stroke("loss:Q", scale=bands, legend=None),
    )  # fmt: skip
    points = alt.Chart(theme.data(_placed(seen))).mark_point(
        filled=True, size=70, opacity=1, stroke="white", strokeWidth=1.3
    )
    layers, notes = [ground], ["points: runs, coloured by their measured loss"]
    if valley is not None:
        found, _ = read_rows(valley, "surface valley", ["sparsity"], positive=["params_total"])
        line = alt.Chart(theme.data(_placed(found))).mark_line(color="white", strokeWidth=2, strokeDash=[6, 3])
        layers.append(line.encode(*place(), order=alt.Order("s:Q")))
        notes.append("dashes: the best size at each sparsity")
    layers.append(points.encode(*place(), color=color, tooltip=tips))
    if optimum is not None:
        best, _ = read_rows(optimum, "surface optimum", ["sparsity"], positive=["params_total"])
        mark = alt.Chart(theme.data(_placed(best))).mark_point(
            shape="diamond", filled=True, size=230, opacity=1, color=theme.DENSE, stroke="white", strokeWidth=1.5
        )
        layers.append(mark.encode(*place()))
        notes.append("diamond: the lowest point")
    chart = alt.layer(*layers, width=600, height=theme.HEIGHT)
    return theme.finish(chart, title, left_out, " · ".join(notes))


def _scaled(sparsity: float) -> float:
    return -math.log1p(-sparsity)


def _placed(rows: list[Row]) -> list[Row]:
    return [row | {"s": _scaled(row["sparsity"])} for row in rows]
