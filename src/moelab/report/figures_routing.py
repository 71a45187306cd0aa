"""The figure of `moelab routing`: which kinds of token and sources each expert takes, one panel per MoE layer."""

import math
from collections.abc import Mapping
from typing import Any

import altair as alt

from moelab.report import theme
from moelab.report.tables import Row

_CELL = 20
_RARE = "#f0c6a4"
"""Paler than the blue at the other end: what an expert takes matters more than what it leaves."""
_EDGE = 3.0
"""Powers of two at the ends of the colour scale: 8 times as often as at random, and an eighth."""


def specialisation(report: Mapping[str, Any], title: str = "") -> Any:
    """Heat maps of `Specialisation.to_dict`: kinds of token, sources and, where tokens take several experts, pairs.

    Colour is log2 of how many times more often than at random an expert is used.
    """
    panels = []
    for layer in report["layers"]:
        takes = alt.vconcat(
            _heat_map(layer, "lift_by_class", "kinds of token"),
            _heat_map(layer, "lift_by_source", "sources"),
            spacing=12,
        )
        pairs = _pairs(layer)
        parts = [takes, _draw(pairs, len(layer["load"]), "experts that take one token together")] if pairs else [takes]
        panels.append(alt.hconcat(*parts, spacing=30).properties(title=theme.panel_title(f"Layer {layer['layer']}")))
    note = "times as often as at random, on held-out text: blue more, orange less"
    return theme.finish(alt.vconcat(*panels, spacing=24), title or "What each expert takes", note=note)


def _heat_map(layer: Mapping[str, Any], key: str, heading: str) -> Any:
    rows = [
        _cell(name, expert, value)
        for name, values in layer[key].items()
        for expert, value in enumerate(values)
        if value is not None and math.isfinite(value)
    ]
    return _draw(rows, len(layer["load"]), heading)


def _pairs(layer: Mapping[str, Any]) -> list[Row]:
    return [
        _cell(other, expert, value)
        for expert, values in enumerate(layer["co_activation"])
        for other, value in enumerate(values)
        if value is not None and math.isfinite(value)
    ]


def _cell(row: str | int, expert: int, value: float) -> Row:
    power = math.log2(value) if value > 0 else -_EDGE
    return {"row": row, "expert": expert, "lift": value, "power": max(-_EDGE, min(_EDGE, power))}


def _draw(rows: list[Row], n_experts: int, heading: str) -> Any:
    numbered = all(isinstance(row["row"], int) for row in rows)
    size = max(6, min(_CELL, 400 // n_experts))
    labels = {"values": list(range(0, n_experts, max(1, round(n_experts / 16))))}
    names = list(range(n_experts)) if numbered else list(dict.fromkeys(row["row"] for row in rows))
    color = alt.Color(
        "power:Q",
        scale={"domain": [-_EDGE, 0, _EDGE], "range": [_RARE, "#fbfbfa", theme.MOE]},
        legend=None,
    )
    return (
        alt.Chart(theme.data(rows))
        .mark_rect()
        .encode(
            x=alt.X("expert:O", title="expert", axis={"labelAngle": 0, "grid": False, **labels}),
            y=alt.Y("row:O", title=None, sort=names, axis={"grid": False, **(labels if numbered else {})}),
            color=color,
            tooltip=theme.tooltip(("row", heading, ""), ("expert", "expert", ""), ("lift", "times random", ".2f")),
        )
        .properties(width=alt.Step(size), height=alt.Step(size), title=theme.panel_title(heading, quiet=True))
    )
