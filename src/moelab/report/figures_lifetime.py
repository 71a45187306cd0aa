"""The frontier of loss against lifetime cost, with the recommended design."""

from typing import Any

import altair as alt

from moelab.report import theme
from moelab.report.tables import read_rows

RIGHT = 0.65
"""Share of the axis from which on the name stands to the left of its mark; before, to the right and above the line."""


def lifetime_frontier(table: Any, *, title: str = "") -> Any:
    """Extra loss against training and serving in US dollars: one mark a design, the recommended one ringed and named.

    Columns: lifetime (US$), extra_nats (above the least loss), design (label), recommended (true for one row, which
    need not be on the frontier).
    """
    rows, left_out = read_rows(
        table, "lifetime_frontier", ["extra_nats"], positive=["lifetime"], texts=["design"], flags=["recommended"]
    )
    rows.sort(key=lambda row: row["lifetime"])
    x = theme.quantity_x("lifetime", rows, "lifetime cost, $ (training and serving)", log=True)
    y = alt.Y(
        "extra_nats:Q", scale=theme.scale([row["extra_nats"] for row in rows]), title="loss above the least, nats"
    )
    tips = theme.tooltip(("design", "design", ""), ("lifetime", "lifetime, $", ".3~s"),
                         ("extra_nats", "extra loss, nats", ".4f"))  # fmt: skip
    base = alt.Chart(theme.data(rows)).encode(x, y)
    line = alt.Chart(theme.data(_lower_than_all_before(rows))).encode(x, y)
    line = line.mark_line(color=theme.MOE, strokeWidth=1.8, opacity=0.6)
    points = base.mark_point(filled=True, size=42, opacity=1, color=theme.MOE).encode(tooltip=tips)
    chosen = [row for row in rows if row["recommended"]]
    one = alt.Chart(theme.data(chosen)).encode(x, y)
    ring = one.mark_point(filled=False, size=300, strokeWidth=2, opacity=1, color=theme.INK)
    low, high = theme.padded([row["lifetime"] for row in rows], log=True)
    left = bool(chosen) and chosen[0]["lifetime"] > low ** (1 - RIGHT) * high**RIGHT
    name = one.mark_text(
        align="right" if left else "left", dx=-14 if left else 14, dy=14 if left else -12, fontWeight=700
    ).encode(text=alt.Text("design:N"))
    chart = alt.layer(line, points, ring, *theme.halo(name), width=640, height=theme.HEIGHT)
    return theme.finish(chart, title, left_out, "ring: the recommended design")


def _lower_than_all_before(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows, in order of cost, whose loss is below that of every cheaper one: the frontier."""
    kept, least = list[dict[str, Any]](), float("inf")
    for row in rows:
        if row["extra_nats"] < least:
            kept.append(row)
            least = row["extra_nats"]
    return kept
