"""The page: whole, escaped, small enough, and without a single address to fetch."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import pytest

from moelab.errors import MoelabError
from moelab.report import Fact, Figure, Page, Section, Table, figures, render_page, write_page
from moelab.report.coefficients import coefficients
from moelab.report.page import PAGE_BYTES

HOSTILE = '</script><script>alert(1)</script><img src="http://evil.example/x.png" onerror=alert(1)>&"\''


def demo_page(demo: SimpleNamespace) -> Page:
    return Page(
        title="Quickstart",
        answer=["Train the MoE.", "It reached `its` aim."],
        facts=[Fact("gain", "0.057", "nats per token")],
        warnings=["Few runs."],
        sections=[
            Section(
                "Final runs",
                text=["Predicted before they ran."],
                figures=[
                    Figure(figures.verification(demo.FINAL), "The final runs."),
                    Figure(None, "Hold-out.", "Nothing was held out."),
                ],
                tables=[Table(["run", "loss"], [["MoE", 3.0612], ["dense", None]], "Losses.")],
                warnings=["Outside the fitted range."],
            ),
            Section(
                "Coefficients",
                figures=[Figure(figures.learning_curves(demo.CURVE))],
                tables=[coefficients(demo.COEFFICIENTS)],
            ),
        ],
        versions={"moelab": "0.1.0"},
        repeat=["make quickstart"],
    )


@pytest.fixture(scope="module")
def html(demo: SimpleNamespace) -> str:
    return render_page(demo_page(demo))


class Elements(HTMLParser):
    """Every start tag with its attributes, and the visible text; scripts and styles apart."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.stack: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))
        if tag not in ("meta", "img", "br"):
            self.stack.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop() == tag

    def handle_data(self, text: str) -> None:
        if self.stack and self.stack[-1] not in ("script", "style"):
            self.words.append(text)


def test_holds_everything_in_order(html: str) -> None:
    page = Elements(html)
    assert page.stack == []
    text = " ".join(" ".join(page.words).split())
    places = [
        text.index(words)
        for words in (
            "Train the MoE.",
            "It reached",
            "Few runs.",
            "0.057",
            "nats per token",
            "Outside the fitted range.",
            "Predicted before they ran.",
            "The final runs.",
            "Nothing was held out.",
            "3.061",
            "Losses.",
            "E_0",
            "make quickstart",
            "moelab 0.1.0",
        )
    ]
    assert places == sorted(places)
    assert sum("data-chart" in attributes for _, attributes in page.tags) == 2
    assert sum(attributes.get("class") == "warning" for _, attributes in page.tags) == 2
    anchors = [attributes["href"] for tag, attributes in page.tags if tag == "a"]
    assert anchors == ["#section-1", "#section-2"]
    assert {anchor[1:] for anchor in anchors if anchor} <= {attributes.get("id") for _, attributes in page.tags}


def test_fetches_nothing(html: str) -> None:
    for tag, attributes in Elements(html).tags:
        for name in ("src", "href", "data", "action", "poster", "srcset"):
            value = attributes.get(name)
            assert value is None or value.startswith(("#", "data:")), (tag, value)
        assert tag not in ("link", "iframe", "object", "embed", "base")
    assert "default-src 'none'" in html
    style = re.findall(r"<style>(.*?)</style>", html, re.S)
    assert style
    assert not any("url(" in text or "@import" in text for text in style)


def test_is_small(html: str) -> None:
    assert len(html.encode()) < PAGE_BYTES


def test_stills_stand_in_without_scripts(html: str) -> None:
    stills = [attributes for tag, attributes in Elements(html).tags if tag == "img"]
    assert [still["alt"] for still in stills] == ["The final runs.", ""]
    assert all((still["src"] or "").startswith("data:image/svg+xml;base64,") for still in stills)


def test_text_is_escaped_everywhere(demo: SimpleNamespace) -> None:
    final = [{**row, "label": HOSTILE, "law": HOSTILE} for row in demo.FINAL]
    page = Page(
        title=HOSTILE,
        answer=[HOSTILE, HOSTILE],
        facts=[Fact(HOSTILE, HOSTILE, HOSTILE)],
        warnings=[HOSTILE],
        sections=[
            Section(
                HOSTILE,
                [HOSTILE],
                [Figure(figures.verification(final), HOSTILE), Figure(None, HOSTILE, HOSTILE)],
                [Table([HOSTILE], [[HOSTILE]], HOSTILE)],
                [HOSTILE],
            )
        ],
        versions={HOSTILE: HOSTILE},
        repeat=[HOSTILE],
    )
    elements = Elements(render_page(page))
    assert [tag for tag, _ in elements.tags].count("script") == 4
    assert [tag for tag, _ in elements.tags].count("img") == 1
    assert not any("onerror" in attributes for _, attributes in elements.tags)


def test_a_page_without_figures_carries_no_library() -> None:
    html = render_page(Page("Plan", ["Nothing fits the budget."], sections=[Section("Why", ["Too small."])]))
    assert "<script" not in html
    assert len(html) < 20_000


def test_three_sentences_stand_before_the_numbers() -> None:
    answer = ["Train the MoE.", "It has 8 experts. It costs $4.", "It takes 3 days. Or 4.", "Two more. Done."]
    text = render_page(Page("t", answer, facts=[Fact("gain", "0.057")]))
    order = [
        "<h1>Train the MoE.",
        ">It has 8 experts.<",
        ">It costs $4.<",
        "0.057",
        ">It takes 3 days. Or 4.<",
        ">Two more. Done.<",
    ]
    places = [text.index(words) for words in order]
    assert places == sorted(places)


def test_cells_that_round_carry_their_number() -> None:
    section = Section("s", tables=[Table(["n", "x"], [[1_280_000_000, 3.06123], [7, None]])])
    cells = [a for tag, a in Elements(render_page(Page("t", ["a"], sections=[section]))).tags if tag == "td"]
    assert [cell.get("data-value") for cell in cells] == ["1280000000", "3.06123", None, None]


def test_an_empty_table_says_so() -> None:
    section = Section("Runs", tables=[Table(["run"], [])])
    assert "This table has no rows." in render_page(Page("t", ["a"], sections=[section]))


def test_plain_tuples_will_do() -> None:
    page = Page("t", ["a"], facts=[("n", "1")], sections=[Section("s", tables=[(["x"], [[1]])])])  # type: ignore[list-item]
    assert "<dd>1</dd>" in render_page(page)


def test_write_page(tmp_path: Path) -> None:
    page = Page("t", ["a"])
    path = write_page(page, tmp_path / "new" / "report.html")
    assert path.read_text() == render_page(page)
    assert [each.name for each in path.parent.iterdir()] == ["report.html"]
    with pytest.raises(MoelabError, match="cannot"):
        write_page(page, path / "below-a-file" / "report.html")


ACTING, SHOWN = "a\u202eb\x1b[31m", r"a\u202eb\x1b[31m"
"""A mark that reorders text and a terminal's escape sequence, and how they are shown."""


def test_control_characters_are_shown_on_the_page() -> None:
    x = ACTING
    section = Section(x, [x], [Figure(None, x, x)], [Table([x, "loss"], [[x, 3.0]], x)], [x])
    page = render_page(Page(x, [x, x], [Fact(x, x, x)], [section, section], [x], {x: x}, [x]))
    assert not {"\u202e", "\x1b"} & set(page)
    assert page.count(SHOWN) == 29


def test_control_characters_are_shown_in_figures(demo: SimpleNamespace, tmp_path: Path) -> None:
    chart = figures.verification([{**row, "label": ACTING} for row in demo.FINAL])
    svg = figures.save_figure(chart, tmp_path / "x.svg").read_text()
    assert not {"\u202e", "\x1b"} & set(svg)
    assert SHOWN in svg
    spec = figures.save_figure(chart, tmp_path / "x.json").read_text()
    assert not {"\\u202e", "\\u001b"} & set(re.findall(r"(?<!\\)\\u....", spec))
    assert (
        json.loads(spec)
        == json.loads(_specs(render_page(Page("x", ["x"], sections=[Section("x", [], [Figure(chart)])]))))[0]
    )


def _specs(page: str) -> str:
    """What the page's script reads."""
    found = re.search(r'<script id="charts" type="application/json">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    return found[1]
