"""The notebooks as they are read without being run: outputs that need no script, no failure, no machine's folder."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
LARGEST = 1_000_000
"""Bytes: GitHub shows no larger notebook reliably."""


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request: pytest.FixtureRequest) -> dict[str, Any]:
    return dict(json.loads(request.param.read_text(encoding="utf-8")))


def outputs(notebook: dict[str, Any]) -> list[dict[str, Any]]:
    return [output for cell in notebook["cells"] for output in cell.get("outputs", [])]


def text(notebook: dict[str, Any]) -> str:
    """Sources and outputs, pictures left out."""
    parts = ["".join(cell["source"]) for cell in notebook["cells"]]
    for output in outputs(notebook):
        parts += ["".join(output.get("text", ""))]
        parts += ["".join(value) for kind, value in output.get("data", {}).items() if kind.startswith("text/")]
    return "\n".join(parts)


def test_three_notebooks_are_named_where_a_reader_looks() -> None:
    assert len(NOTEBOOKS) == 3
    for page in ("README.md", "docs/python.md"):
        shown = (ROOT / page).read_text(encoding="utf-8")
        assert [path.name for path in NOTEBOOKS if f"notebooks/{path.name}" not in shown] == []


def test_every_cell_was_run_and_none_failed(notebook: dict[str, Any]) -> None:
    counts = [cell["execution_count"] for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert counts == list(range(1, len(counts) + 1))
    assert {output["output_type"] for output in outputs(notebook)} <= {"stream", "display_data", "execute_result"}
    assert [output["text"] for output in outputs(notebook) if output.get("name") == "stderr"] == []


def test_figures_are_pictures(notebook: dict[str, Any]) -> None:
    kinds = [set(output["data"]) for output in outputs(notebook) if "data" in output]
    assert {"image/png"} & set().union(*kinds)
    assert [kind for kind in kinds if any("vega" in name or "javascript" in name for name in kind)] == []


def test_no_folder_of_a_machine_is_named(notebook: dict[str, Any]) -> None:
    assert re.findall(r"(?:/home|/root|/work|/tmp|/Users)/\S*", text(notebook)) == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_is_small_enough_to_be_shown(path: Path) -> None:
    assert path.stat().st_size < LARGEST
