"""One self-contained HTML page: the answer in plain words, key facts, figures and tables; it never touches the network.

page = Page(title="Study", answer=["Train the MoE."], sections=[Section("Runs", figures=[Figure(chart, "Loss")])])
write_page(page, "report.html")
"""

import base64
import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from moelab.files import write_text

PAGE_BYTES = 1_500_000
STATIC_BYTES = 100_000  # a still picture larger than this is left out: the interactive one is there


class Fact(NamedTuple):
    """A number that belongs at the top: its name, the value as people read it, and a short note."""

    name: str
    value: str
    note: str = ""


class Figure(NamedTuple):
    """An Altair chart and the sentence below it. A chart of None prints `note` in its place: why there is none."""

    chart: Any
    caption: str = ""
    note: str = "No data for this figure."


class Table(NamedTuple):
    """Columns, rows (text, numbers, true/false or None) and a caption. Columns of numbers are aligned right."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    caption: str = ""


@dataclass(frozen=True)
class Section:
    """A part of the page: warnings first, then text, figures and tables. Backticks in text mark code."""

    title: str
    text: Sequence[str] = ()
    figures: Sequence[Figure] = ()
    tables: Sequence[Table] = ()
    warnings: Sequence[str] = ()


@dataclass(frozen=True)
class Page:
    """Everything on the page. The first sentence of `answer` is the headline."""

    title: str
    answer: Sequence[str]
    facts: Sequence[Fact] = ()
    sections: Sequence[Section] = ()
    warnings: Sequence[str] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    repeat: Sequence[str] = ()  # the commands that make this page again


def write_page(page: Page, path: str | Path) -> Path:
    """Write the page atomically and return its path. Raises MoelabError where the path cannot be written."""
    path = Path(path)
    write_text(path, render_page(page))
    return path


def render_page(page: Page) -> str:
    """The page as HTML text, about 1 MB because it carries its drawing library; all text is escaped."""
    import jinja2

    from moelab.report.save import figure_spec
    from moelab.report.words import column_alignment, column_cells, rich, shown

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("moelab.report"), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=jinja2.StrictUndefined, finalize=shown,
    )  # fmt: skip
    environment.filters |= {"rich": rich}
    charts = [
        figure.chart
        for section in page.sections
        for figure in map(_figure, section.figures)
        if figure.chart is not None
    ]
    specs = [figure_spec(chart) for chart in charts]
    script = _library() if specs else ""
    stills = _stills(charts, PAGE_BYTES - len(script) - sum(len(json.dumps(spec)) for spec in specs) - 60_000)
    return environment.get_template("page.html.j2").render(
        page=page,
        sections=_numbered(page.sections),
        facts=[Fact(*fact) for fact in page.facts],
        specs=_safe_json(specs),
        stills=stills,
        bundle=script.replace("</script", "<\\/script"),
        alignment=column_alignment,
        cells=column_cells,
    )


@functools.cache
def _library() -> str:
    """Vega, Vega-Lite and Vega-Embed in one script, 0.9 MB."""
    import vl_convert

    return str(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;"))


def _figure(figure: Figure | Sequence[Any]) -> Figure:
    return Figure(*figure)


def _numbered(sections: Sequence[Section]) -> list[dict[str, Any]]:
    """The sections with an anchor each, and the place of each figure's chart in the list of charts."""
    numbered, count = [], 0
    for number, section in enumerate(sections, 1):
        figures = []
        for figure in map(_figure, section.figures):
            figures.append(
                {"index": count if figure.chart is not None else None, "caption": figure.caption, "note": figure.note}
            )
            count += figure.chart is not None
        tables = [Table(*table) for table in section.tables]
        numbered.append({"id": f"section-{number}", "section": section, "figures": figures, "tables": tables})
    return numbered


def _safe_json(value: Any) -> str:
    """JSON that may stand inside a script element: no tag or comment can start in it."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _stills(charts: Sequence[Any], room: int) -> list[str | None]:
    """A still SVG per chart as a data address, seen until the interactive chart replaces it, while there is room."""
    from moelab.report.save import slim_svg

    stills: list[str | None] = []
    for chart in charts:
        address = "data:image/svg+xml;base64," + base64.b64encode(slim_svg(chart).encode()).decode()
        fits = len(address) <= min(STATIC_BYTES, room)
        room -= len(address) if fits else 0
        stills.append(address if fits else None)
    return stills
