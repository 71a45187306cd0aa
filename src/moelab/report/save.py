"""Figures to files: SVG, PNG, PDF, HTML or JSON by the name's ending, without a browser or the network."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from moelab.errors import InputError
from moelab.files import write_bytes

PNG_SCALE = 2.0


def figure_svg(chart: Any) -> str:
    """The chart as SVG text."""
    import vl_convert

    return str(vl_convert.vegalite_to_svg(chart.to_json()))


def save_figure(chart: Any, path: str | Path) -> Path:
    """Write a chart atomically to .svg, .png (twice the pixels), .pdf, .html (self-contained) or .json (Vega-Lite)."""
    import vl_convert

    writers: dict[str, Callable[[], str | bytes]] = {
        ".svg": lambda: figure_svg(chart),
        ".png": lambda: vl_convert.vegalite_to_png(chart.to_json(), scale=PNG_SCALE),
        ".pdf": lambda: vl_convert.vegalite_to_pdf(chart.to_json()),
        ".html": lambda: vl_convert.vegalite_to_html(chart.to_json(), bundle=True),
        ".json": lambda: json.dumps(chart.to_dict(), indent=1, allow_nan=False) + "\n",
    }
    path = Path(path)
    if path.suffix.lower() not in writers:
        raise InputError(f"path: expected a name that ends in {', '.join(writers)}, got {str(path)!r}")
    content = writers[path.suffix.lower()]()
    write_bytes(path, content.encode() if isinstance(content, str) else content)
    return path
