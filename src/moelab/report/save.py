"""Figures to files: SVG, PNG, PDF, HTML or JSON by the name's ending, without a browser or the network."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from moelab.errors import InputError
from moelab.files import write_bytes
from moelab.printable import printable

PNG_SCALE = 2.0


def figure_spec(chart: Any) -> dict[str, Any]:
    """The chart as a Vega-Lite specification; control characters in its names are shown, escaped."""
    # Every part was checked when it was made; checking the whole again takes longer than all else here.
    spec: dict[str, Any] = _printable_strings(chart.to_dict(validate=False))
    return spec


def _printable_strings(value: Any) -> Any:
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, dict):
        return {key: _printable_strings(inner) for key, inner in value.items()}
    return [_printable_strings(inner) for inner in value] if isinstance(value, list | tuple) else value


def figure_svg(chart: Any) -> str:
    """The chart as SVG text."""
    import vl_convert

    return str(vl_convert.vegalite_to_svg(figure_spec(chart)))


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
        ".png": lambda: vl_convert.vegalite_to_png(figure_spec(chart), scale=PNG_SCALE),
        ".pdf": lambda: vl_convert.vegalite_to_pdf(figure_spec(chart)),
        ".html": lambda: vl_convert.vegalite_to_html(figure_spec(chart), bundle=True),
        ".json": lambda: json.dumps(figure_spec(chart), indent=1, allow_nan=False) + "\n",
    }
    path = Path(path)
    if path.suffix.lower() not in writers:
        raise InputError(f"path: expected a name that ends in {', '.join(writers)}, got {str(path)!r}")
    content = writers[path.suffix.lower()]()
    write_bytes(path, content.encode() if isinstance(content, str) else content)
    return path
