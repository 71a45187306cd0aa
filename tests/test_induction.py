"""Losses of tokens that continue a repeat: which they are, and that the committed table is of the committed records."""

import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

PLACE = Path(__file__).parents[1] / "results" / "predictions"


@pytest.fixture
def induction(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(PLACE.parents[1] / "benchmarks"))
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


def test_the_committed_table_has_the_losses_of_the_records() -> None:
    found = {row["run_id"]: row for row in json.loads((PLACE / "induction.json").read_text())["runs"]}
    records = [json.loads(path.read_text()) for name in ("runs", "seeds") for path in PLACE.glob(f"{name}/*.json")]
    assert set(found) == {record["run_id"] for record in records}
    for record in records:
        assert found[record["run_id"]]["loss"] == pytest.approx(record["loss"], rel=1e-5)
