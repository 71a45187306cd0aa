"""Losses of tokens that continue a repeat: which they are, and that the committed table is of the committed records."""

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

RESULTS = Path(__file__).parents[1] / "results"


@pytest.fixture
def induction(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(RESULTS.parent / "benchmarks"))
    import induction

    monkeypatch.delitem(sys.modules, "induction")
    return induction


def test_a_token_is_repeated_where_its_pair_was_last_followed_by_it(induction: ModuleType) -> None:
    """Rows do not see each other; of several continuations the last one counts."""
    rows = np.array([[1, 2, 3, 1, 2, 4, 1, 2], [1, 2, 9, 9, 9, 9, 9, 9]])
    targets = np.array([[2, 3, 1, 2, 4, 1, 2, 4], [2, 9, 9, 9, 9, 9, 9, 8]])
    assert induction.continuations(rows, targets).tolist() == [[0, 0, 0, 0, -1, 0, 0, 1], [0, 0, 0, 0, 1, 1, 1, -1]]


def test_it_finds_what_a_search_back_finds(induction: ModuleType) -> None:
    text = np.random.default_rng(0).integers(0, 4, (5, 41))
    rows, targets = text[:, :-1], text[:, 1:]
    expected = np.zeros(rows.shape, int)
    for row in range(5):
        for at in range(1, 40):
            for back in range(at - 1, 0, -1):
                if rows[row, back - 1 : back + 1].tolist() == rows[row, at - 1 : at + 1].tolist():
                    expected[row, at] = 1 if targets[row, back] == targets[row, at] else -1
                    break
    assert (induction.continuations(rows, targets) == expected).all()
    assert set(np.unique(expected)) == {-1, 0, 1}


def records(study: str, *folders: str) -> dict[str, dict[str, Any]]:
    """A study's committed records by run id."""
    paths = [path for folder in folders for path in (RESULTS / study).glob(f"{folder}/*.json")]
    return {record["run_id"]: record for record in (json.loads(path.read_text()) for path in paths)}


def test_the_committed_tables_have_the_losses_of_the_records() -> None:
    """All predicted runs and further seeds, and those of the reference study that still had weights."""
    for name, known in (
        ("induction", records("predictions", "runs", "seeds")),
        ("induction-reference", records("reference", "runs")),
    ):
        found = {
            row["run_id"]: row for row in json.loads((RESULTS / "predictions" / f"{name}.json").read_text())["runs"]
        }
        assert set(found) == set(known) if name == "induction" else set(found) < set(known)
        for run_id, row in found.items():
            assert row["loss"] == pytest.approx(known[run_id]["loss"], rel=1e-5)
