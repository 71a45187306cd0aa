"""Figures to files: SVG, PNG, PDF, HTML or JSON by the name's ending, without a browser or the network."""

import json
import re
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


def slim_svg(chart: Any) -> str:
    """A small SVG for the page: no invisible marks, short coordinates, and the font the text was measured with."""
    svg = re.sub(r'<path(?:[^>]* opacity="0"|(?![^>]* (?:fill|stroke)="))[^>]*/>', "", figure_svg(chart))
    svg = re.sub(r' (?:aria-[a-z]+|role|stroke-miterlimit)="[^"]*"', "", svg)
    svg = re.sub(r'(?<= d=")[^"]+|(?<= transform=")[^"]+', lambda found: re.sub(r"(\.\d)\d+", r"\1", found[0]), svg)
    return re.sub(r'font-family="[^"]*"', 'font-family="Arial, Liberation Sans, sans-serif"', svg)


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
