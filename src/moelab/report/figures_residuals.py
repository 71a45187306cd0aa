"""A fit's errors against every variable that the runs differ in."""

from typing import Any

import altair as alt

from moelab.report import theme
from moelab.report.tables import read_rows, unique
from moelab.report.titles import titled

PANEL = (300, 150)
"""Width and height of a panel, pixels."""
WIDE = 20.0
"""Ratio of the largest to the least value from which an axis is logarithmic."""


def residuals(points: Any, *, title: str = "") -> Any:
    """A panel per variable: predicted / measured - 1 of every run against it.

    Columns: variable, x, error_rel, law, label. Errors that rise or fall along a variable are what the law does not
    describe.
    """
    rows, left_out = read_rows(points, "residuals", ["x", "error_rel"], texts=["variable", "law", "label"])
    laws = unique(row["law"] for row in rows)
    bound = max(abs(row["error_rel"]) for row in rows) * 1.12 or 0.01
    panels = []
    for name in unique(row["variable"] for row in rows):
        mine = [row for row in rows if row["variable"] == name]
        values = [row["x"] for row in mine]
        log = min(values) > 0 and max(values) / min(values) > WIDE
        y = alt.Y(
            "error_rel:Q",
            scale={"domain": [-bound, bound], "nice": False},
            axis={"labelExpr": theme.SIGNED_PERCENT, "title": "error", "tickCount": 5},
        )
        tips = theme.tooltip(
            ("label", "run", ""),
            ("law", "law", ""),
            ("x", titled(name), ".4~g"),
            ("error_rel", "error", "+.2%"),
        )
        marks = (
            alt.Chart(theme.data(mine))
            .mark_point(filled=True, size=34, opacity=0.75)
            .encode(
                theme.quantity_x("x", mine, titled(name), log=log),
                y,
                theme.law_color(laws),
                theme.law_shape(laws),
                tooltip=tips,
            )
        )
        zero = alt.Chart(theme.data([{"error_rel": 0}])).mark_rule(color=theme.RULE).encode(y=y)
        panels.append(alt.layer(zero, marks, width=PANEL[0], height=PANEL[1]))
    return theme.finish(alt.concat(*panels, columns=2, spacing=26), title, left_out)
