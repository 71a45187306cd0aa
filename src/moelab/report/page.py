"""One self-contained HTML page: the answer in plain words, key facts, figures and tables; it never touches the network.

page = Page(title="Study", answer=["Train the MoE."], sections=[Section("Runs", figures=[Figure(chart, "Loss")])])
write_page(page, "report.html")
"""

import base64
import functools
import json
import re
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
    """Everything on the page. The first sentence of `answer` is the headline; the first three stand above the facts."""

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
    from moelab.report.dark import DARK_COLORS

    specs = section_specs(page.sections)
    script = chart_library() if specs else ""
    stills = _stills(_charts(page.sections), PAGE_BYTES - len(script) - sum(map(len, map(json.dumps, specs))) - 60_000)
    lead, after = lead_of(page.answer)
    return (
        environment()
        .get_template("page.html.j2")
        .render(
            page=page,
            lead=lead,
            after=after,
            sections=numbered(page.sections),
            facts=[Fact(*fact) for fact in page.facts],
            specs=safe_json(specs),
            stills=stills,
            bundle=script.replace("</script", "<\\/script"),
            dark_colors=safe_json(DARK_COLORS),
            has_tables=any(Table(*table).rows for part in page.sections for table in part.tables),
        )
    )


@functools.cache
def environment() -> Any:
    """The templates of all pages, with every value escaped and control characters shown."""
    import jinja2

    from moelab.report.words import page_columns, rich, shown

    made = jinja2.Environment(
        loader=jinja2.PackageLoader("moelab.report"), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=jinja2.StrictUndefined, finalize=shown,
    )  # fmt: skip
    made.filters |= {"rich": rich}
    made.globals |= {"columns_of": lambda table: page_columns(table.columns, table.rows)}
    return made


def section_specs(sections: Sequence[Section]) -> list[dict[str, Any]]:
    """The Vega-Lite specification of every chart, in the order of `numbered`."""
    from moelab.report.save import figure_spec

    return [figure_spec(chart) for chart in _charts(sections)]


def _charts(sections: Sequence[Section]) -> list[Any]:
    figures = [_figure(figure) for section in sections for figure in section.figures]
    return [figure.chart for figure in figures if figure.chart is not None]


LEAD_SENTENCES = 3
_SENTENCE_END = re.compile(r"(?<=[.!?]) (?=[A-Z0-9`])")


def lead_of(answer: Sequence[str]) -> tuple[list[str], list[str]]:
    """At most three sentences to read before the numbers, and the rest, in paragraphs."""
    lead: list[str] = []
    after: list[str] = []
    for paragraph in answer:
        sentences = _SENTENCE_END.split(paragraph)
        room = 0 if after else LEAD_SENTENCES - len(lead)
        lead += sentences[:room]
        if sentences[room:]:
            after.append(" ".join(sentences[room:]))
    return lead, after


@functools.cache
def chart_library() -> str:
    """Vega, Vega-Lite and Vega-Embed in one script, 0.9 MB."""
    import vl_convert

    # Without a snippet of one's own it is the bundle of `vegalite_to_html`, which vl-convert builds once per process.
    return str(vl_convert.javascript_bundle())  # type: ignore[call-arg]  # the stub has no default for it


def _figure(figure: Figure | Sequence[Any]) -> Figure:
    return Figure(*figure)


def numbered(sections: Sequence[Section]) -> list[dict[str, Any]]:
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


def safe_json(value: Any) -> str:
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
