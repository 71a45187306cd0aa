"""The page of a plan: doubt first, every part, the command; and the frontier with its knee."""

import re
from pathlib import Path
from typing import Any

import pytest

from moelab.cli import main
from moelab.errors import InputError
from moelab.fitting import FittedLaw, save_fits
from moelab.planning import Budget, Plan, Space
from moelab.planning.phrases import paragraphs
from moelab.planning.plan import plan
from moelab.planning.plan_page import plan_page
from moelab.quantities import format_dollars
from moelab.report import figures, write_page
from moelab.report.save import figure_spec

pytestmark = pytest.mark.usefixtures("pages_without_library")


@pytest.fixture(scope="module")
def planned(tiny: Space, fits: list[FittedLaw]) -> Plan:
    serving = {"hardware": "h100", "tokens": 1e12, "traffic": {"prompt": 64, "output": 32}}
    budget = Budget.parse({"flops": 1e14, "train_hardware": "h100", "mfu": 0.4, "serving": serving}, "plan")
    return plan(budget, fits, tiny)


def test_the_page_holds_every_part(planned: Plan, tmp_path: Path) -> None:
    page = plan_page(planned, "moelab plan --flops 1e14")
    titles = [section.title for section in page.sections]
    assert titles[:2] == ["Why", "Designs"]
    assert {"Predicted loss", "Law by law", "Learning rate and batch"} <= set(titles)
    if planned.lifetime is not None:
        assert "Loss against lifetime cost" in titles
    assert ("Warnings" in titles) == bool(planned.warnings)
    text = write_page(page, tmp_path / "plan.html").read_text()
    assert "moelab plan --flops 1e14" in text
    assert planned.best.label.split(",")[0] in text
    assert not re.search(r'(?:src|href)="(?:https?:)?//', text)  # self-contained


def test_a_number_is_on_the_page_once_with_its_interval(planned: Plan) -> None:
    """The costs of design 1 are rows of its table, and its sentences do not repeat them."""
    part = next(part for part in plan_page(planned, "moelab plan").sections if part.title.startswith("Latency"))
    rows = {row[0]: row[1:3] for row in part.tables[0].rows}
    assert planned.best.cost is not None
    assert rows["cost, lifetime"][0] == format_dollars(planned.best.cost["lifetime"])
    assert not any("80 %" in text for text in part.text)
    assert any("Calibrations: serving" in text for text in part.text)


def test_doubt_and_the_recommendation_come_first() -> None:
    text = "No law supports this plan: much. Train a dense model of 1.5B parameters. It takes 2 days. Limits: none."
    assert paragraphs(text) == [
        "No law supports this plan: much.",
        "Train a dense model of 1.5B parameters.",
        "It takes 2 days. Limits: none.",
    ]


ROWS: list[dict[str, Any]] = [
    {"lifetime": 1e6, "extra_nats": 0.02, "design": "a", "recommended": False},
    {"lifetime": 2e6, "extra_nats": 0.01, "design": "b", "recommended": False},
    {"lifetime": 2.2e6, "extra_nats": 0.012, "design": "c", "recommended": True},
    {"lifetime": 9e6, "extra_nats": 0.0, "design": "d", "recommended": False},
]


def test_the_frontier_names_the_recommended_design_alone_and_its_line_leaves_out_what_lies_beside_it() -> None:
    spec = figure_spec(figures.lifetime_frontier(ROWS))
    drawn: dict[str, list[list[str]]] = {"text": [], "line": []}
    for layer in spec["layer"]:
        if layer["mark"]["type"] in drawn:
            rows = spec["datasets"][layer["data"]["name"]]
            drawn[layer["mark"]["type"]].append([row["design"] for row in rows])
    assert drawn["text"]
    assert all(names == ["c"] for names in drawn["text"])
    assert drawn["line"] == [["a", "b", "d"]]
    with pytest.raises(InputError, match=r"^lifetime_frontier: column recommended is missing"):
        figures.lifetime_frontier([{name: row[name] for name in row if name != "recommended"} for row in ROWS])


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stop:
        main(words)
    out, err = capsys.readouterr()
    return int(stop.value.code or 0), out, err


def test_the_command_writes_files_and_page(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, tiny: Space, fits: list[FittedLaw]
) -> None:
    tiny.to_yaml(tmp_path / "space.yaml")
    save_fits({fit.law.id: fit for fit in fits}, tmp_path / "fit.json")
    words = ("plan", "--flops", "1e14", "--space", str(tmp_path / "space.yaml"), "--law", str(tmp_path / "fit.json"))
    page, folder = tmp_path / "plan.html", tmp_path / "out"
    code, out, _ = run(capsys, *words, "--out", str(folder), "--report", str(page))
    assert code == 0
    assert f"to {folder}" in " ".join(out.split()) or "Wrote run.yaml" in out
    assert (folder / "run.yaml").exists()
    assert page.stat().st_size > 10_000


@pytest.mark.parametrize(
    ("flag", "value", "reason"),
    [
        ("--report", "plan.svg", "--report: expected a name that ends in .html"),
        ("--report", ".", "--report: expected a name that ends in .html"),
        ("--out", "space.yaml", "--out: expected a folder"),
        ("--out", ".", "--out: . holds other files"),
    ],
)
def test_bad_places_are_one_line(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    flag: str,
    value: str,
    reason: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "space.yaml").write_text("attention: full\n")
    code, _, err = run(capsys, "plan", "--flops", "1e20", flag, value)
    assert code == 2
    assert reason in err
    assert len(err.strip().splitlines()) == 1
