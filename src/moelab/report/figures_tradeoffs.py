"""Figures of trade-offs: loss against size and serving cost, throughput against latency."""

import math
from typing import Any, NamedTuple

import altair as alt

from moelab.quantities import format_number
from moelab.report import theme
from moelab.report.tables import Row, read_rows, unique

MAX_LABELS, LABEL_GAP = 6, 22  # names on the front, and the pixels between two of them
LETTER, LABEL_WIDTH = 6, 210  # pixels of a letter of a name, and the most that a name takes
ABOVE = 22  # pixels from a mark up to a name that has no room beside it


def pareto(
    table: Any,
    *,
    loss_title: str = "loss (nats per token)",
    cost_title: str = "serving cost",
    title: str = "",
    share: bool = False,
) -> Any:
    """Loss against total parameters and, where known, against serving cost; designs on the front are solid and named.

    Columns: loss, params_total, serving_cost (may be null or absent), label, kind (dense|moe), on_front (bool: no
    other design is better on every count), recommended (bool, may be absent: the design in a ring). With `share`, loss
    is a share, printed in per cent.
    """
    rows, left_out = read_rows(
        table, "pareto", ["loss"], positive=["params_total"], texts=["label", "kind"], flags=["on_front"],
        optional=["serving_cost"], optional_flags=["recommended"],
    )  # fmt: skip
    priced = [row for row in rows if row["serving_cost"] is not None and row["serving_cost"] > 0]
    width = 350 if priced else 640
    panels = [_panel(rows, rows, "params_total", "total parameters", loss_title, width, share)]
    if priced:
        panels.append(_panel(priced, rows, "serving_cost", cost_title, loss_title, width, share))
    notes = ["solid: on the front"] if len({row["on_front"] for row in rows}) == 2 else []
    if any(row["recommended"] for row in rows):
        notes.append("ring: recommended")
    return theme.finish(alt.concat(*panels, columns=2, spacing=28), title, left_out, " · ".join(notes))


def _panel(rows: list[Row], every: list[Row], field: str, x_title: str, y_title: str, width: int, share: bool) -> Any:
    height = 320
    y_scale = theme.scale([row["loss"] for row in every])
    y = alt.Y("loss:Q", scale=y_scale, axis={"title": y_title, "format": ".0%"} if share else {"title": y_title})
    x = theme.quantity_x(field, rows, x_title, log=True)
    loss = ("loss", y_title, ".1%") if share else ("loss", "loss", ".3f")
    tips = theme.tooltip(("label", "design", ""), ("kind", "kind", ""), loss,
                         ("params_total", "total parameters", ".3~s"),
                         ("serving_cost", "serving cost", ".3~g"))  # fmt: skip
    color, shape = theme.kind_color(every), theme.kind_shape(every)
    dominated, front = (
        alt.Chart(theme.data([row for row in rows if row["on_front"] == on_front]))
        .mark_point(filled=True, size=size, opacity=opacity)
        .encode(x, y, color, shape, tooltip=tips)
        for on_front, size, opacity in ((False, 42, 0.3), (True, 85, 1))
    )
    ring = (
        alt.Chart(theme.data([row for row in rows if row["recommended"]]))
        .mark_point(filled=False, shape="circle", size=300, strokeWidth=2, opacity=1, color=theme.INK)
        .encode(x, y, tooltip=tips)
    )
    names = _names(named_designs(rows, field, height / (y_scale["domain"][1] - y_scale["domain"][0]), width))
    named = [] if not names else theme.halo(_name_marks(names).encode(x, y, color, text=alt.Text("label:N")))
    return alt.layer(dominated, *named, front, ring, width=width, height=height)


class Name(NamedTuple):
    """A design to name; whether its name stands left of its mark, and above it, as other marks lie on either side."""

    row: Row
    left: bool
    above: bool = False


def _names(chosen: list[Name]) -> list[Row]:
    """The rows of the designs to name, with how each name is set."""
    return [
        {
            **row,
            "align": "right" if left else "left",
            "dx": (-9 if left else 9) * (1.4 if row["recommended"] else 1),
            "dy": -ABOVE if above else 0,
            "weight": "bold" if row["recommended"] else "normal",
        }
        for row, left, above in chosen
    ]


def _name_marks(names: list[Row]) -> Any:
    """All names as one mark: Altair copies each layer some ten times."""
    align, dx, dy, weight = (alt.expr(f"datum.{name}") for name in ("align", "dx", "dy", "weight"))
    return alt.Chart(theme.data(names)).mark_text(
        align=align, dx=dx, dy=dy, fontWeight=weight, limit=LABEL_WIDTH, fontSize=11
    )


def named_designs(rows: list[Row], field: str, pixels_per_loss: float, width: int) -> list[Name]:
    """The designs to name, the recommended one and then the best.

    Names keep `LABEL_GAP` apart, stay inside the panel and cover no other mark; one without such a place is left out,
    but for the recommended design's, which then stands above its mark.
    """
    low, high = theme.padded([row[field] for row in rows], log=True)
    place = {
        id(row): (math.log(row[field] / low) / math.log(high / low) * width, row["loss"] * pixels_per_loss)
        for row in rows
    }
    chosen: list[Name] = []
    wanted = [row for row in rows if row["on_front"] or row["recommended"]]
    for row in sorted(wanted, key=lambda row: (not row["recommended"], row["loss"])):
        across, up = place[id(row)]
        long = min(len(row["label"]) * LETTER, LABEL_WIDTH) + 14
        apart = all(abs(up - place[id(other.row)][1] - ABOVE * other.above) >= LABEL_GAP for other in chosen)
        if not apart or len(chosen) == MAX_LABELS:
            continue
        others = [
            place[id(other)] for other in rows if other is not row and abs(up - place[id(other)][1]) < LABEL_GAP / 2
        ]
        room = {
            True: across > long and not any(across - long < x <= across for x, _ in others),
            False: across + long < width and not any(across <= x < across + long for x, _ in others),
        }
        if any(room.values()) or row["recommended"]:
            crowded = not any(room.values())
            chosen.append(Name(row, room[True] or (crowded and across > width / 2), crowded))
    return chosen


def serving_curve(table: Any, *, title: str = "") -> Any:
    """Throughput against the time per output token as the batch grows: one line per model.

    Columns: batch, tokens_per_second, time_per_output_token (seconds), label. Batch sizes stand beside the marks.
    """
    rows, left_out = read_rows(
        table, "serving_curve", [], positive=["batch", "tokens_per_second", "time_per_output_token"], texts=["label"]
    )
    rows.sort(key=lambda row: row["batch"])
    for row in rows:
        row |= {
            "milliseconds": row["time_per_output_token"] * 1e3,
            "size": format_number(row["batch"]),
            "law": row["label"],
        }
    names = unique(row["label"] for row in rows)
    log_x = max(row["milliseconds"] for row in rows) > 4 * min(row["milliseconds"] for row in rows)
    x = theme.quantity_x("milliseconds", rows, "time per output token (ms)", log=log_x)
    speeds = [row["tokens_per_second"] for row in rows]
    y_scale = theme.scale(speeds, log=True)
    y = alt.Y("tokens_per_second:Q", scale=y_scale, axis=theme.axis(speeds, "tokens per second", log=True))
    color = theme.law_color(names, legend=False)
    tips = theme.tooltip(("label", "model", ""), ("batch", "batch", ",d"), ("tokens_per_second", "tokens/s", ".3~s"),
                         ("milliseconds", "ms per token", ".3~g"))  # fmt: skip
    ends = [max((row for row in rows if row["label"] == name), key=lambda row: row["batch"]) for name in names]
    base = alt.Chart(theme.data(rows)).encode(x, y, color)
    sizes = base.mark_text(align="right", baseline="bottom", dx=-6, dy=-2, fontSize=10.5).encode(
        text=alt.Text("size:N")
    )
    named = (
        alt.Chart(theme.data(ends))
        .mark_text(align="left", dx=9, fontWeight=600)
        .encode(x, y, color, text=alt.Text("label:N"))
    )
    lines = base.mark_line(strokeWidth=1.8).encode(order=alt.Order("batch:Q"))
    points = base.mark_point(filled=True, size=48, opacity=1).encode(tooltip=tips)
    chart = alt.layer(lines, points, *theme.halo(sizes), *theme.halo(named))
    note = "numbers: sequences in the batch"
    return theme.finish(chart.properties(width=620, height=theme.HEIGHT), title, left_out, note)
