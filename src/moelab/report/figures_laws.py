"""Figures of fitted laws: predicted against measured with residuals, and hold-out error by extrapolation."""

from typing import Any

import altair as alt

from moelab.report import theme
from moelab.report.tables import Row, read_rows, unique


def predicted_measured(points: Any, *, title: str = "") -> Any:
    """A panel per law: predicted against measured loss with intervals, and the residuals below it.

    Columns: law, measured, predicted, low, high (may be null), held_out (bool), label, kind (dense|moe). Hollow marks
    were fitted, solid ones held out; the grey line is a perfect prediction.
    """
    rows, left_out = read_rows(
        points, "predicted_measured", ["measured", "predicted"], texts=["law", "label", "kind"], flags=["held_out"],
        optional=["low", "high"],
    )  # fmt: skip
    for row in rows:
        row["residual"] = row["predicted"] / row["measured"] - 1
        row |= {
            f"residual_{end}": None if row[end] is None else row[end] / row["measured"] - 1 for end in ("low", "high")
        }
    laws = unique(row["law"] for row in rows)
    columns = min(len(laws), 3)
    width = {1: 620, 2: 350, 3: 228}[columns]
    split = {row["held_out"] for row in rows}
    note = "hollow: fitted · solid: held out" if len(split) == 2 else "held out" if True in split else "fitted"
    panels = [_law_panel(rows, law, width, len(laws) > 1) for law in laws]
    return theme.finish(alt.concat(*panels, columns=columns, spacing=24), title, left_out, note)


def _law_panel(rows: list[Row], law: str, width: int, named: bool) -> Any:
    ends = [row[name] for row in rows for name in ("measured", "predicted", "low", "high")]
    scale = theme.scale(ends, share=0.04)
    residuals = [
        abs(row[name])
        for row in rows
        for name in ("residual", "residual_low", "residual_high")
        if row[name] is not None
    ]
    bound = max(residuals) * 1.08 or 0.01
    mine = [row for row in rows if row["law"] == law]
    x_scale = theme.scale([row["measured"] for row in rows])
    x, x_named = (
        alt.X("measured:Q", scale=x_scale, axis={"title": name, "grid": False, "tickCount": 5, "labels": bool(name)})
        for name in (None, "measured loss")
    )
    diagonal = theme.data([{"measured": v, "predicted": v} for v in x_scale["domain"]])
    perfect = (
        alt.Chart(diagonal).mark_line(color=theme.RULE, strokeWidth=1).encode(x, alt.Y("predicted:Q", scale=scale))
    )
    main = alt.layer(
        perfect,
        _bars(mine, rows, x, "low", "high", scale, "predicted loss"),
        *_marks(mine, rows, x, alt.Y("predicted:Q", scale=scale, axis={"title": "predicted loss", "minExtent": 40})),
    )
    r_scale = {"domain": [-bound, bound], "nice": False}
    r_axis = {"labelExpr": theme.SIGNED_PERCENT, "tickCount": 4, "title": "error", "minExtent": 40}
    zero = (
        alt.Chart(theme.data([{"residual": 0}]))
        .mark_rule(color=theme.RULE)
        .encode(y=alt.Y("residual:Q", scale=r_scale, axis=r_axis))
    )
    below = alt.layer(
        zero,
        _bars(mine, rows, x_named, "residual_low", "residual_high", r_scale, "error"),
        *_marks(mine, rows, x_named, alt.Y("residual:Q", scale=r_scale, axis=r_axis)),
    )
    title = {"title": theme.panel_title(law)} if named else {}
    return alt.vconcat(
        main.properties(width=width, height=240, **title), below.properties(width=width, height=110), spacing=8
    )  # fmt: skip


def _bars(mine: list[Row], rows: list[Row], x: Any, low: str, high: str, scale: Any, title: str) -> Any:
    y = alt.Y(low, type="quantitative", scale=scale, title=title)
    return (
        alt.Chart(theme.data(mine))
        .mark_rule(strokeWidth=1.4, opacity=0.45)
        .encode(x, y, theme.kind_color(rows), y2=alt.Y2(high))
    )


def _marks(mine: list[Row], rows: list[Row], x: Any, y: Any) -> list[Any]:
    tips = theme.tooltip(
        ("label", "run", ""), ("law", "law", ""), ("held_out", "held out", ""), ("measured", "measured", ".3f"),
        ("predicted", "predicted", ".3f"), ("low", "low", ".3f"), ("high", "high", ".3f"),
        ("residual", "error", "+.2%"),
    )  # fmt: skip
    return [
        alt.Chart(theme.data(part))
        .mark_point(size=55, strokeWidth=1.6, opacity=1, filled=held_out)
        .encode(x, y, theme.kind_color(rows), theme.kind_shape(rows), tooltip=tips)
        for held_out in (False, True)
        if (part := [row for row in mine if row["held_out"] == held_out])
    ]


def holdout_error(points: Any, *, title: str = "") -> Any:
    """Error of the runs a fit had not seen, against how far beyond the fitted ones they lie.

    Columns: law, extrapolation (a factor: 4 is four times the largest fitted run), error_rel (predicted / measured
    - 1), covered (bool: the interval held the measured loss). Solid marks were covered, hollow ones missed.
    """
    rows, left_out = read_rows(
        points, "holdout_error", ["error_rel"], positive=["extrapolation"], texts=["law"], flags=["covered"]
    )
    bound = max(abs(row["error_rel"]) for row in rows) * 1.12 or 0.01
    laws = unique(row["law"] for row in rows)
    x = theme.quantity_x("extrapolation", rows, "times the largest fitted run", log=True)
    y = alt.Y(
        "error_rel:Q",
        scale={"domain": [-bound, bound], "nice": False},
        axis={"labelExpr": theme.SIGNED_PERCENT, "title": "predicted / measured − 1", "tickCount": 7},
    )
    color, shape = theme.law_color(laws), theme.law_shape(laws)
    tips = theme.tooltip(
        ("law", "law", ""), ("extrapolation", "extrapolation", ".3~g"),
        ("error_rel", "error", "+.2%"), ("covered", "in interval", "")
    )  # fmt: skip
    zero = alt.Chart(theme.data([{"error_rel": 0}])).mark_rule(color=theme.RULE).encode(y=y)
    marks = [
        alt.Chart(theme.data(part))
        .mark_point(size=65, strokeWidth=1.7, opacity=0.9, filled=covered)
        .encode(x, y, color, shape, tooltip=tips)
        for covered in (False, True)
        if (part := [row for row in rows if row["covered"] == covered])
    ]
    note = "solid: inside the predicted interval · hollow: outside"
    chart = alt.layer(zero, *marks, width=theme.WIDTH, height=300)
    return theme.finish(chart, title, left_out, note)
