"""The tables of runs that ship: readable, whole, with a card that counts right, and equal to the records."""

import json
import sys
from pathlib import Path

import pytest

from moelab.errors import InputError
from moelab.runs import datasets

ROOT = Path(__file__).parents[2]


def test_the_reference_table_is_that_of_the_records() -> None:
    rows = datasets.reference()
    losses = dict(zip(rows["run_id"], rows["loss"], strict=True))
    found = {}
    for path in (ROOT / "results" / "reference").rglob("*.json"):
        record = json.loads(path.read_text(encoding="utf-8"))
        if record["loss"] is not None:
            found[record["run_id"]] = record["loss"]
    assert losses == pytest.approx(found), "run python benchmarks/reference_table.py"
    assert {"params_active", "tokens", "unique_tokens", "epochs", "train_flops", "learning_rate"} <= set(rows.columns)


def test_the_card_counts_the_rows() -> None:
    rows = datasets.reference()
    text = datasets.card("reference")
    assert f"{len(rows)} finished training runs" in text
    assert "Apache-2.0" in text
    with pytest.raises(InputError, match="did you mean 'reference'"):
        datasets.card("referense")


def test_the_table_is_written_by_one_command(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        import reference_table as script

        rows = script.table(ROOT / "results" / "reference")
        shipped = (script.PLACE / "reference.csv").read_text(encoding="utf-8")
        assert rows.write_csv() == shipped, "run python benchmarks/reference_table.py"
        assert script.card(rows) == datasets.card("reference")
    sys.modules.pop("reference_table", None)
