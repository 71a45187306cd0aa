"""Every colour of the figures and its counterpart on a dark page: the same hue, light enough to read."""

DARK_COLORS = {
    # paper and ink
    "white": "#1d242b",
    "#fbfbfa": "#262e36",
    "#1f2933": "#e6eaee",
    "#5b6673": "#a3aeb9",
    "#9aa3ad": "#74808c",
    "#aab2bc": "#5f6b77",
    "#e6e9ed": "#2f3841",
    "#d3d8de": "#4a5561",
    # MoE, dense, rarely used experts
    "#0072b2": "#56b4e9",
    "#c25400": "#f0894a",
    "#f0c6a4": "#8f5c33",
    # laws
    "#00795c": "#3fbf9b",
    "#a8478a": "#d98cc2",
    "#8a6a00": "#d2ad3d",
    "#3c4a5a": "#b4c2d1",
    "#2b78b0": "#7fc0ee",
    "#b23a48": "#ef8791",
    "#6f5bb5": "#a999e6",
    "#5c7a1e": "#a9cc5e",
    # groups with an order, from first to last
    "#440154": "#b48ad0",
    "#46327e": "#9a94e0",
    "#365c8d": "#7cacdf",
    "#237a89": "#5cc0cf",
    "#127d5f": "#63d8bb",
    "#4f7f17": "#a2e6ad",
}
"""Light theme -> dark theme, as the specifications write them; every other string of a specification stays."""
