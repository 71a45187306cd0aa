"""The house style of every figure: fonts, a colour-blind-safe palette, axes whose ticks read as people write."""

import functools
import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Any

import altair as alt

from moelab.report.tables import Row

INK, MUTED, RULE, GRID = "#1f2933", "#5b6673", "#9aa3ad", "#e6e9ed"
MOE, DENSE = "#0072b2", "#c25400"  # Okabe and Ito's blue, and their vermillion dark enough for text (4.5:1)
KIND_ORDER = ["MoE", "dense"]
KIND_COLORS, KIND_SHAPES = [MOE, DENSE], ["circle", "square"]
LAW_COLORS = ["#00795c", "#a8478a", "#8a6a00", "#3c4a5a", "#2b78b0", "#b23a48", "#6f5bb5", "#5c7a1e"]
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, 'Liberation Sans', sans-serif"
WIDTH, HEIGHT = 760, 340
LONG = 1e4
"""Number from which the labels of an axis are short, such as 20K."""

# 300K, 1.6M, 2B, 1e21: the tick labels of every axis that counts something.
HUMAN = (
    "datum.value == 0 ? '0' : abs(datum.value) >= 1e15 || abs(datum.value) < 1e-3"
    " ? replace(format(datum.value, '.3~e'), '+', '')"
    " : replace(replace(format(datum.value, abs(datum.value) < 1 ? '.3~g' : '.3~s'), 'G', 'B'), 'k', 'K')"
)

# A signed share of a residual axis: +1.5%, 0, −2%.
SIGNED_PERCENT = "datum.value == 0 ? '0' : format(datum.value, '+.1~%')"


def finish(chart: Any, title: str = "", left_out: int = 0, note: str = "") -> Any:
    """Give a complete chart of the caller's own the house style, a title, a note, and how many rows were not drawn."""
    missing = f"{left_out} row{'s' if left_out > 1 else ''} without a finite value not drawn" if left_out else ""
    notes = [line for line in (note, missing) if line]
    if title or notes:
        quiet: dict[str, Any] = {} if title else {"fontSize": 12, "fontWeight": "normal", "color": MUTED, "offset": 2}
        chart.title = alt.TitleParams(title or notes, subtitle=notes if title else [], **quiet)
    chart.config = _house_style().copy()
    return chart


@functools.cache
def _house_style() -> Any:
    """The configuration of every figure. It is assigned: Altair's own `configure` copies the whole chart first."""
    axis: dict[str, Any] = {
        "labelColor": MUTED,
        "titleColor": INK,
        "titleFontWeight": 500,
        "labelFontSize": 12,
        "titleFontSize": 12.5,
    }
    return alt.Config(
        font=FONT,
        background="white",
        padding=10,
        view=alt.ViewConfig(stroke=None, continuousWidth=WIDTH, continuousHeight=HEIGHT),
        axis=alt.AxisConfig(
            grid=True,
            gridColor=GRID,
            domain=False,
            ticks=False,
            labelPadding=6,
            titlePadding=10,
            labelOverlap="greedy",
            **axis,
        ),
        axisY=alt.AxisConfig(labelLimit=320),
        axisX=alt.AxisConfig(domain=True, domainColor="#aab2bc", ticks=True, tickColor="#aab2bc", tickSize=4),
        legend=alt.LegendConfig(
            orient="top",
            direction="horizontal",
            title=None,
            labelFontSize=12.5,
            labelColor=INK,
            symbolSize=90,
            symbolOpacity=1,
            offset=8,
            padding=0,
        ),
        title=alt.TitleConfig(
            anchor="start", color=INK, fontSize=14, fontWeight=600, subtitleColor=MUTED, subtitleFontSize=12, offset=10
        ),
        header=alt.HeaderConfig(labelFontSize=12.5, labelColor=INK, labelFontWeight=600),
        text=alt.MarkConfig(color=INK, fontSize=11.5),
    )


def panel_title(text: str, quiet: bool = False) -> Any:
    """The heading of one panel among several, above its plot's left edge; `quiet` for a word of explanation."""
    weight: Any = "normal" if quiet else 600
    color: Any = MUTED if quiet else INK
    return alt.TitleParams(text, fontSize=12.5, offset=6, frame="group", fontWeight=weight, color=color)


def data(rows: Iterable[Row]) -> Any:
    """Inline data for a chart; the rows come after its making, which would check every cell against a schema."""
    inline = alt.InlineData(values=())
    inline["values"] = tuple(rows)
    return inline


def padded(values: Iterable[float | None], log: bool = False, share: float = 0.06) -> list[float]:
    """The domain of an axis that holds all values with a margin on both sides."""
    known = [value for value in values if value is not None]
    low, high = min(known), max(known)
    if log:
        factor = (high / low) ** share
        # Values that differ by rounding alone have no span of their own.
        return [low / factor, high * factor] if factor > 1 + 1e-12 else [low / 1.5, high * 1.5]
    margin = (high - low) * share
    if margin <= max(abs(low), abs(high)) * 1e-12:
        margin = max(abs(high) * 0.02, 1e-3)
    return [low - margin, high + margin]


def log_ticks(low: float, high: float) -> list[float]:
    """Round numbers on a log axis from low to high: about four to eight of them."""
    span = math.log10(high / low)
    if span < 0.25:
        step = 10 ** math.floor(math.log10((high - low) / 3))
        step *= next(m for m in (1, 2, 5, 10) if (high - low) / (step * m) <= 6)
        return [round(step * i, 12) for i in range(math.ceil(low / step), math.floor(high / step) + 1)]
    mantissas: Sequence[float] = (
        (1, 1.5, 2, 3, 4, 5, 7) if span < 0.8 else (1, 2, 5) if span < 1.9 else (1, 3) if span < 3.2 else (1,)
    )
    stride = max(1, math.ceil(span / 8))
    exponents = [e for e in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1) if e % stride == 0]
    return [float(f"{m}e{e}") for e in exponents for m in mantissas if low <= float(f"{m}e{e}") <= high]


def scale(values: Iterable[float | None], log: bool = False, share: float = 0.06) -> Any:
    """A scale that holds all values with a margin; never forced through zero."""
    domain = padded(values, log, share)
    return {"type": "log", "domain": domain, "nice": False} if log else {"domain": domain, "nice": False, "zero": False}


def axis(values: Iterable[float | None], title: str, log: bool = False, **options: Any) -> Any:
    """An axis with human tick labels, such as 20K; on a log axis the ticks are round numbers, or the few values."""
    known = sorted({value for value in values if value is not None})
    ticks: Any = alt.Undefined
    if log:
        spread = [b / a for a, b in itertools.pairwise(known)]
        few = len(known) <= 8 and all(float(f"{v:.2g}") == v for v in known) and min(spread, default=2) > 1.3
        ticks = known if few else log_ticks(*padded(known, log))
    short = log or max(known, default=0) >= LONG
    options = {"grid": True, "labelExpr": HUMAN if short else alt.Undefined, **options}
    return dict(title=title, values=ticks, tickCount=6, **options)


def quantity_x(field: str, rows: Sequence[Row], title: str, log: bool = False, **options: Any) -> Any:
    """The x channel of a number, with the house's scale and axis."""
    values = [row[field] for row in rows]
    axis_x = axis(values, title, log, grid=False, **options)
    return alt.X(field, type="quantitative", scale=scale(values, log), axis=axis_x)


def kind_color(rows: Sequence[Row], legend: bool = True) -> Any:
    """MoE blue and dense orange, everywhere; the legend lists the kinds that occur."""
    shown = {"values": present_kinds(rows), "title": None} if legend and len(present_kinds(rows)) > 1 else None
    return alt.Color("kind", type="nominal", scale={"domain": KIND_ORDER, "range": KIND_COLORS}, legend=shown)


def kind_shape(rows: Sequence[Row], legend: bool = True) -> Any:
    """MoE circles and dense squares, everywhere."""
    shown = {"values": present_kinds(rows), "title": None} if legend and len(present_kinds(rows)) > 1 else None
    return alt.Shape("kind", type="nominal", scale={"domain": KIND_ORDER, "range": KIND_SHAPES}, legend=shown)


def law_color(laws: Sequence[str], legend: bool = True) -> Any:
    """A hue per law, none of them those of MoE and dense."""
    hues = [LAW_COLORS[i % len(LAW_COLORS)] for i in range(len(laws))]
    shown = {"title": None, "columns": 4} if legend and len(laws) > 1 else None
    return alt.Color("law", type="nominal", scale={"domain": list(laws), "range": hues}, legend=shown)


def law_shape(laws: Sequence[str], legend: bool = True) -> Any:
    """A mark per law, so that laws differ without colour too."""
    marks = ["diamond", "triangle-up", "cross", "triangle-down", "triangle-right", "triangle-left"]
    shown = {"title": None, "columns": 4} if legend and len(laws) > 1 else None
    shapes = [marks[i % len(marks)] for i in range(len(laws))]
    return alt.Shape("law", type="nominal", scale={"domain": list(laws), "range": shapes}, legend=shown)


def ordered_colors(n: int) -> list[str]:
    """`n` hues from dark to light for groups with an order (viridis without its yellow end)."""
    ramp = ["#440154", "#46327e", "#365c8d", "#237a89", "#127d5f", "#4f7f17"]
    return [ramp[2]] if n == 1 else [ramp[round(i * (len(ramp) - 1) / (n - 1))] for i in range(n)]


def present_kinds(rows: Sequence[Row]) -> list[str]:
    """The kinds that occur, in the order of the legend."""
    return [kind for kind in KIND_ORDER if any(row["kind"] == kind for row in rows)]


def spread_labels(positions: Sequence[float], low: float, high: float, height: float, gap: float = 13.0) -> list[float]:
    """Move labels apart on a vertical axis of `height` pixels so that neighbours are `gap` pixels apart, in order."""
    scale_px = height / (high - low)
    order = sorted(range(len(positions)), key=lambda i: positions[i])
    placed = [positions[i] * scale_px for i in order]
    for _ in range(200):
        moved = False
        for i in range(len(placed) - 1):
            overlap = gap - (placed[i + 1] - placed[i])
            if overlap > 1e-6:
                placed[i] -= overlap / 2
                placed[i + 1] += overlap / 2
                moved = True
        if not moved:
            break
    result = [0.0] * len(positions)
    for rank, index in enumerate(order):
        result[index] = placed[rank] / scale_px
    return result


def tooltip(*fields: tuple[str, str, str]) -> list[Any]:
    """Tooltip lines from (field, title, d3 format); an empty format means text.

    Channels, not dicts: Altair hashes all its schemas for each dict that it turns into a channel.
    """
    return [
        alt.Tooltip(field=name, title=title, type="quantitative", format=form)
        if form
        else alt.Tooltip(field=name, title=title, type="nominal")
        for name, title, form in fields
    ]


def halo(text: Any) -> list[Any]:
    """A text mark twice: first as a white outline, so that the words stay legible over lines."""
    outline = text.copy()
    mark = outline.mark.to_dict() if hasattr(outline.mark, "to_dict") else {"type": outline.mark}
    outline.mark = {
        **mark,
        "stroke": "white",
        "strokeWidth": 3.5,
        "strokeJoin": "round",
        "strokeOpacity": 0.9,
        "tooltip": None,
    }
    return [outline, text]
