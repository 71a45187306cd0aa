"""The pages in Chromium: every kind of control, bad input, uploads, addresses, keyboard, both widths and themes."""

import csv
import os
from pathlib import Path
from typing import Any

import pytest

from tests.app.browser import START, answered

pytestmark = pytest.mark.browser
SHOTS = os.environ.get("MOELAB_SCREENSHOTS")
"""A folder to keep pictures of the pages in."""


def test_a_change_gives_another_answer_and_address(page: Any, address: str) -> None:
    page.goto(f"{address}?{START}")
    answered(page, START)
    first = page.inner_text("h1")
    page.fill("#flops", "1e19")
    answered(page, START.replace("1e18", "1e19"))
    assert page.url == f"{address}?flops=1e19&near=olmoe-1b-7b"
    assert page.inner_text("h1") != first
    assert page.locator("#downloads a").first.get_attribute("href").endswith("flops=1e19&near=olmoe-1b-7b")
    page.go_back()
    answered(page, START)
    assert page.inner_text("h1") == first
    assert page.input_value("#flops") == "1e18"
    page.reload()
    assert page.inner_text("h1") == first


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max-params", "4B"), ("max-active", "700M"), ("max-memory", "8GB"), ("unique-tokens", "10B"),
        ("max-tokens", "20B"),
        ("hardware", "h200"), ("kinds", "moe"), ("seq-len", "2048"),
    ],
)  # fmt: skip
def test_every_control_is_answered(page: Any, address: str, name: str, value: str) -> None:
    page.goto(f"{address}?{START}")
    answered(page, START)
    field = page.locator(f"#{name}")
    page.evaluate("document.querySelectorAll('details').forEach((part) => { part.open = true; })")
    if field.evaluate("node => node.tagName") == "SELECT":
        field.select_option(value)
    else:
        field.fill(value)
    asked = "pair => document.getElementById('evidence').dataset.asked?.includes(pair)"
    page.wait_for_function(asked, arg=f"{name}={value}")
    assert page.is_hidden("#error"), page.inner_text("#error")
    assert f"--{name} {value}" in page.inner_text("#repeat")


def test_bad_input_is_shown_at_its_field_and_the_last_answer_is_marked(page: Any, address: str) -> None:
    page.goto(f"{address}?{START}")
    answered(page, START)
    title = page.inner_text("h1")
    page.fill("#flops", "many")
    page.wait_for_selector('[data-field="flops"].bad')
    assert "expected a number such as 1e21" in page.inner_text('[data-field="flops"] .wrong')
    assert page.inner_text("h1") == title
    assert "the settings before" in page.inner_text("#outdated")
    assert page.get_attribute("#outdated a", "href") == f"/?{START}"
    assert page.locator("#answer.outdated").count() == 1
    assert page.is_hidden("#downloads")
    page.fill("#flops", "1e18")
    page.wait_for_selector("#error", state="hidden")
    assert page.locator(".bad, .outdated").count() == 0
    assert page.is_hidden("#outdated")
    assert page.is_visible("#downloads")


def test_one_address_is_one_state(page: Any, address: str) -> None:
    """The front page is the example however one comes to it; a form without values has an address of its own."""

    def fields() -> dict[str, str]:
        return page.evaluate("Object.fromEntries(new URLSearchParams(new FormData(document.forms[0])))")

    page.goto(address)
    example = page.get_attribute("#answer", "data-asked")
    title, first = page.inner_text("h1"), fields()
    assert first["flops"] == "1e21"
    page.fill("#flops", "3e22")
    page.wait_for_function("document.getElementById('answer').dataset.asked.includes('3e22')")
    page.go_back()
    page.wait_for_function("asked => document.getElementById('answer').dataset.asked === asked", arg=example)
    assert fields() == first
    assert page.inner_text("h1") == title
    page.evaluate("for (const field of document.forms[0].elements) if (field.name) field.value = ''")
    page.locator("#flops").dispatch_event("input")
    page.wait_for_selector("#outdated")
    empty = page.url
    assert empty.endswith("/?flops=")
    page.goto(empty)
    assert page.input_value("#flops") == ""
    assert "is required" in page.inner_text("#error")


def test_the_keyboard_reaches_everything(page: Any, address: str) -> None:
    page.goto(f"{address}?{START}")
    answered(page, START)
    reached = set()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the answer"
    for _ in range(60):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.id || document.activeElement.tagName"))
    assert {"flops", "gpus", "max-params", "hardware", "SUMMARY", "BUTTON"} <= reached
    sort = page.locator("th button").first
    sort.focus()
    page.keyboard.press("Enter")
    assert page.locator("th").first.get_attribute("aria-sort") == "ascending"


def test_every_field_and_figure_has_a_name(page: Any, address: str) -> None:
    page.goto(f"{address}?{START}")
    answered(page, START)
    nameless = page.evaluate(
        """() => [...document.querySelectorAll("input, select, button, a, .chart")].filter((node) =>
        !(node.labels && node.labels.length) && !node.getAttribute("aria-label") && !node.textContent.trim())
        .map((node) => node.outerHTML.slice(0, 80))"""
    )
    assert nameless == []


def test_tables_sort_filter_and_download(page: Any, address: str) -> None:
    page.goto(f"{address}?{START}")
    answered(page, START)
    table = page.locator("section:has(h2:text-is('Designs')) table")
    head = table.locator("th", has_text="tokens")
    column = head.evaluate("node => node.cellIndex")
    cells = f"rows => [...rows].map((row) => row.cells[{column}].textContent)"
    head.locator("button").click()
    rising = table.locator("tbody tr").evaluate_all(cells)
    head.locator("button").click()
    falling = table.locator("tbody tr").evaluate_all(cells)
    assert rising != falling
    assert rising[0] == falling[-1]
    with page.expect_download() as caught:
        page.locator("section:has(h2:text-is('Designs')) button:text-is('CSV')").click()
    lines = Path(caught.value.path()).read_text().splitlines()
    assert lines[0].startswith("rank,")
    assert len(lines) == 1 + len(rising)
    page.locator("section:has(h2:text-is('Designs')) input[type=search]").fill("no such row")
    assert table.locator("tbody tr:visible").count() == 0


@pytest.mark.parametrize("kind", ["svg", "png"])
def test_figures_are_saved(page: Any, address: str, kind: str) -> None:
    page.goto(f"{address}?{START}")
    answered(page, START)
    with page.expect_download() as caught:
        page.locator(f"button:text-is('{kind.upper()}')").first.click()
    start = Path(caught.value.path()).read_bytes()[:100]
    assert (b"<svg" in start) if kind == "svg" else start.startswith(b"\x89PNG")
    assert caught.value.suggested_filename == f"predicted-loss.{kind}"


def test_a_table_is_fitted_and_planned_with(page: Any, address: str, tmp_path: Path) -> None:
    import moelab

    law = moelab.get_law("besiroglu2024")
    lines = ["run,params (M),tokens (B),val_loss"]
    for number, (size, tokens) in enumerate((s, t) for s in (10, 20, 40, 80) for t in (0.1, 0.4, 2.0)):
        loss = float(law.loss(None, {"params_total": size * 1e6, "tokens": tokens * 1e9}))
        lines.append(f"<img src=x onerror=alert({number})>,{size},{tokens},{loss:.6f}")
    file = tmp_path / "runs.csv"
    file.write_text("\n".join(lines))
    page.on("dialog", lambda dialog: pytest.fail("a run's name was run as a script"))
    page.goto(f"{address}fit")
    page.set_input_files("#table", file)
    page.wait_for_selector("#start:visible")
    assert page.input_value("#column-params_total") == "params (M)"
    page.locator("#laws summary").click()
    page.check("[name=law][value=besiroglu2024]")
    page.click("#start")
    page.wait_for_selector("#onward:visible")
    assert page.locator("#result img").count() == 0
    assert "besiroglu2024" in page.inner_text("#result")
    page.click("#plan")
    page.wait_for_selector("h1")
    assert "law=upload:" in page.url.replace("%3A", ":")
    assert "flops=1e19" in page.url
    assert "dense model" in page.inner_text("#answer header")


def test_a_fit_is_cancelled(page: Any, address: str, tmp_path: Path) -> None:
    file = tmp_path / "runs.csv"
    rows = [f"{n}e7,{d}e9,{3 + 1 / n + 1 / d},{e},2" for n in range(1, 9) for d in range(1, 9) for e in (4, 8)]
    file.write_text("\n".join(["params_active,tokens,loss,n_experts,top_k", *rows]))
    page.goto(f"{address}fit")
    page.set_input_files("#table", file)
    page.wait_for_selector("#start:visible")
    page.click("#start")
    page.wait_for_selector("#cancel:visible")
    page.click("#cancel")
    page.wait_for_selector("#start:visible")
    assert page.inner_text("#status") == "Cancelled."


@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_fit_their_width_and_theme(browser: Any, address: str, width: int, scheme: str) -> None:
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page = context.new_page()
    for name, place in (("plan", f"?{START}"), ("fit", "fit")):
        page.goto(address + place)
        page.wait_for_load_state("networkidle")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        dark = page.evaluate("getComputedStyle(document.body).backgroundColor") != "rgb(255, 255, 255)"
        assert dark == (scheme == "dark")
        if SHOTS:
            page.screenshot(path=Path(SHOTS) / f"{name}-{width}-{scheme}.png", full_page=True)
    context.close()


def test_a_figure_of_many_rows_is_painted_whole(browser: Any, tmp_path: Path) -> None:
    """A report's rows stand once by name: they are found there, painted on a canvas, and tables are paged."""
    from moelab.report import Figure, Page, Section, Table, figures, write_page

    rows = [
        {"label": f"run {n}", "kind": "moe" if n % 2 else "dense", "params_active": 1e5 + n, "params_total": 2e5 + n,
         "tokens": 1e7 + 1e3 * n, "n_experts": 1 + 7 * (n % 2), "loss": 3 - n * 1e-4}
        for n in range(1600)
    ]  # fmt: skip
    table = Table(["run", "loss"], [[row["label"], row["loss"]] for row in rows])
    chart = Figure(figures.loss_by_size(rows), "Losses.")
    path = write_page(
        Page("Runs", ["Many."], sections=[Section("Runs", figures=[chart], tables=[table])]), tmp_path / "r.html"
    )
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto(path.as_uri())
    page.wait_for_selector(".chart canvas:visible")
    assert page.locator(".chart svg").count() == 0
    assert page.locator("tbody tr:visible").count() == 100
    with page.expect_download() as caught:
        page.locator("button:text-is('CSV')").click()
    assert len(Path(caught.value.path()).read_text().splitlines()) == 1601
    page.close()


def test_a_tables_csv_holds_no_formula(browser: Any, tmp_path: Path) -> None:
    """Names of runs and columns come from others: scripts stay text, and no cell of a CSV is read as a formula."""
    from moelab.report import Page, Section, Table, write_page

    names = [
        "=cmd|'/c calc'!A0",
        "+1+cmd|'/c calc'!A0",
        "-2+3+cmd|'/c calc'!A0",
        "@SUM(1)",
        "-e5",
        "＝1+1",
        "<script>alert(1)</script>",
    ]
    plain = ["-0.31", "+1.5%", "-2e-4", "-", "-.5", "-1,234.5", "plain"]
    rows = [[name, number] for name, number in zip(names, plain, strict=True)]
    table = Table(["=1+1", "<img src=x onerror=alert(1)>"], rows)
    path = write_page(Page("Runs", ["Hostile."], sections=[Section("Runs", tables=[table])]), tmp_path / "r.html")
    page = browser.new_page()
    page.on("dialog", lambda dialog: pytest.fail("a name was run as a script"))
    page.goto(path.as_uri())
    assert page.locator("table img, table script").count() == 0
    with page.expect_download() as caught:
        page.locator("button:text-is('CSV')").click()
    lines = Path(caught.value.path()).read_text().splitlines()
    assert [line.lstrip('"')[0] for line in lines[:7]] == ["'"] * 7
    shown = ["–" if text == "-" else text for text in plain]  # the page's dash for nothing
    assert [row[1] for row in csv.reader(lines[1:])] == shown
    page.close()
