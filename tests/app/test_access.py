"""Who reads by contrast and moves by keyboard: every text of every page in both themes, every control by Tab."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import moelab
from tests.app.browser import START, answered

pytestmark = pytest.mark.browser
MEASURE = (Path(__file__).parent / "access.js").read_text()
SERVED = "flops=1e19&hardware=h100&serve-tokens=1e12&near=olmoe-1b-7b"
CONTROLS = """() => [...document.querySelectorAll("a[href], button, input, select, summary, [tabindex='0']")]
    .filter((node) => node.checkVisibility({ checkVisibilityCSS: true }) && node.getClientRects().length
        && !node.disabled && node.tabIndex >= 0)"""


@pytest.fixture(params=["light", "dark"])
def themed(browser: Any, request: pytest.FixtureRequest) -> Any:
    """A page of 1280 pixels in either theme."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, color_scheme=request.param)
    yield context.new_page()
    context.close()


def readable(page: Any, fewest: int = 40) -> None:
    """Text of 4.5:1 (large text 3:1), marks and rings of 3:1 at least, on all of the page."""
    page.evaluate("document.querySelectorAll('details').forEach((part) => { part.open = true; })")
    page.wait_for_timeout(400)  # transitions end
    found = page.evaluate(MEASURE)
    assert found["wrong"] == []
    assert found["pairs"] >= fewest


def test_the_planner_and_its_report_can_be_read(themed: Any, address: str, tmp_path: Path) -> None:
    themed.goto(f"{address}?{SERVED}")
    answered(themed, SERVED)
    readable(themed, 200)
    plan = themed.request.get(f"{address}download/plan.html?{SERVED}")
    (tmp_path / "plan.html").write_bytes(plan.body())
    themed.goto((tmp_path / "plan.html").as_uri())
    themed.wait_for_load_state("networkidle")
    readable(themed, 150)


def test_errors_and_an_answer_of_the_settings_before_can_be_read(themed: Any, address: str) -> None:
    themed.goto(f"{address}?{START}&foo=1")
    answered(themed, START)
    themed.fill("#flops", "many")
    themed.wait_for_selector("#answer.outdated")
    assert themed.is_visible("#unknown")
    readable(themed, 100)


def test_the_fit_page_can_be_read(themed: Any, address: str, tmp_path: Path) -> None:
    law = moelab.get_law("besiroglu2024")
    rows = [(1e7 * n, 1e8 * d) for n in (1, 2, 4, 8) for d in (1, 4, 20)]
    lines = [f"{n},{d},{law.loss(None, {'params_total': n, 'tokens': d}):.5f}" for n, d in rows]
    (tmp_path / "runs.csv").write_text("\n".join(["params_total,tokens,loss", *lines]))
    themed.goto(f"{address}fit")
    readable(themed, 8)
    themed.set_input_files("#table", tmp_path / "runs.csv")
    themed.wait_for_selector("#start:visible")
    themed.evaluate("document.getElementById('laws').open = true")
    themed.check("[name=law][value=besiroglu2024]")
    themed.click("#start")
    themed.wait_for_selector("#onward:visible", timeout=60_000)
    readable(themed, 80)


def test_a_study_report_can_be_read(
    themed: Any, tmp_path: Path, tiny_data: dict[str, Any], threads: Callable[..., None]
) -> None:
    from moelab.studies import StudyConfig, run_study

    threads()
    train = {"tokens": 640, "seq_len": 16, "batch_tokens": 64, "learning_rate": 0.02, "eval_tokens": 500,
             "threads": 1, "precision": "fp32"}  # fmt: skip
    model = {"vocab_size": 300, "d_model": 8, "n_layers": 1, "n_heads": 1, "d_ff": 16}
    entries = [{"name": "grid", "set": {"model.d_ff": [8, 16, 24, 32], "train.tokens": [320, 640, 1280]}}]
    study = {"name": "tiny", "title": "What wins?", "data": {**tiny_data}, "base": {"model": model, "train": train},
             "runs": entries, "fit": {"laws": ["hoffmann2022"], "bootstrap": 2}}  # fmt: skip
    run_study(StudyConfig.parse(study), tmp_path / "out", quiet=True)
    themed.goto((tmp_path / "out" / "report.html").as_uri())
    themed.wait_for_load_state("networkidle")
    readable(themed, 100)


@pytest.mark.parametrize("place", [f"?{START}", "fit"])
def test_tab_reaches_every_control_in_its_order(page: Any, address: str, place: str) -> None:
    """Each once, as they stand, with a visible focus; from the last one it leaves the page: no trap."""
    page.goto(address + place)
    if place != "fit":
        answered(page, START)
    page.evaluate("document.querySelectorAll('details').forEach((part) => { part.open = true; })")
    page.evaluate(f"({CONTROLS})().forEach((node, at) => {{ node.dataset.at = at; }})")
    count = page.evaluate(f"({CONTROLS})().length")
    assert count >= (60 if place != "fit" else 2)
    reached = []
    for _ in range(count):
        page.keyboard.press("Tab")
        reached.append(
            page.evaluate(
                """() => {
                const node = document.activeElement, box = node.getBoundingClientRect(), style = getComputedStyle(node);
                const ring = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 1;
                const inside = box.bottom > 0 && box.top < innerHeight;
                return [Number(node.dataset.at ?? -1), ring, inside];
                }"""
            )
        )
    assert [at for at, *_ in reached] == list(range(count))
    assert [at for at, ring, inside in reached if not (ring and inside)] == []
    # A control never stands wholly above the one before it, but where the main column begins.
    jumps = page.evaluate(
        f"""() => {{ const all = ({CONTROLS})(); scrollTo(0, 0); document.querySelector("form").scrollTo(0, 0);
        return all.filter((node, at) => at && node.closest("form") === all[at - 1].closest("form")
            && !node.closest(".act") && !all[at - 1].matches(".skip")
            && node.getBoundingClientRect().bottom <= all[at - 1].getBoundingClientRect().top)
            .map((node) => node.outerHTML.slice(0, 90)); }}"""
    )
    assert jumps == []


def test_enter_and_space_do_what_a_click_does(page: Any, address: str) -> None:
    page.goto(f"{address}?{START}")
    answered(page, START)
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "answer"
    laws = page.locator("details.group").last
    for key, is_open in (("Enter", True), ("Space", False), ("Space", True)):
        laws.locator("summary").press(key)
        assert laws.evaluate("node => node.open") is is_open
    box = page.locator("[name=law][value=ludziejewski2025]")
    box.press("Space")
    answered(page, f"{START}&law=ludziejewski2025")
    assert box.is_checked()
    head = page.locator("section:has(h2:text-is('Designs')) th").nth(3)
    for key, order in (("Enter", "ascending"), ("Space", "descending")):
        head.locator("button").press(key)
        assert head.get_attribute("aria-sort") == order
    page.locator("#flops").press("Enter")
    answered(page, f"{START}&law=ludziejewski2025")
