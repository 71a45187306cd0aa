"""benchmarks/compare_numbers.py finds every changed number and key, and lets text differ."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "compare_numbers.py"
OLD: dict[str, Any] = {"a": 1, "text": "x", "run_id": "7", "rows": [{"loss": 0.1, "ok": True, "none": None}, [2, 3]]}


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("compare_numbers", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({}, []),
        ({"text": "another"}, []),
        ({"a": 1.0}, []),
        ({"a": 1.0000000000000002}, ["a: 1 -> 1.0000000000000002"]),
        ({"a": "1"}, ["a: 1 -> '1'"]),
        ({"a": None}, ["a: 1 -> None"]),
        ({"a": True}, ["a: 1 -> True"]),
        ({"b": 2}, ["b: only in the new"]),
        ({"run_id": "8"}, ["run_id: 7 -> 8"]),
        ({"rows": [{"loss": 0.1, "none": None, "ok": True}]}, ["rows: 2 entries -> 1"]),
        ({"rows": [{"loss": 0.2, "ok": False}, [2, 3]]},
         ["rows[0].loss: 0.1 -> 0.2", "rows[0].ok: True -> False", "rows[0].none: only in the old"]),
        ({"rows": [{"loss": 0.1, "ok": True, "none": 0}, [3, 2]]},
         ["rows[0].none: None -> 0", "rows[1][0]: 2 -> 3", "rows[1][1]: 3 -> 2"]),
    ],
)  # fmt: skip
def test_differences(script: ModuleType, change: dict[str, Any], found: list[str]) -> None:
    assert list(script.differences(OLD, OLD | change)) == found


def test_names_are_left_out_at_every_depth(script: ModuleType) -> None:
    changed = {**OLD, "a": 2, "rows": [{"loss": 0.2, "ok": True, "none": None}, [2, 3]]}
    assert list(script.differences(OLD, changed, frozenset({"a", "loss"}))) == []


def test_folders_and_tables(script: ModuleType, tmp_path: Path) -> None:
    """Files are matched by their path, cells are read as numbers; the exit code shows whether anything differs."""
    for name, loss in (("old", "1.5"), ("new", "1.50"), ("other", "1.6")):
        (tmp_path / name / "runs").mkdir(parents=True)
        (tmp_path / name / "runs.csv").write_text(
            f"run_id,name,loss,seconds\n12345e6789,{name},{loss},{len(name)}\n8,x,,4\n"
        )
        (tmp_path / name / "runs" / "plan.json").write_text(json.dumps(OLD | {"text": name}))
    old, new, other = (tmp_path / name for name in ("old", "new", "other"))
    assert script.compare(old, new) == []
    assert script.compare(old, other) == ["runs.csv: [0].loss: 1.5 -> 1.6", "runs.csv: [0].seconds: 3.0 -> 5.0"]
    assert script.compare(old, other, frozenset({"seconds", "loss"})) == []
    (old / "runs.csv").write_text((old / "runs.csv").read_text().replace("12345e6789", "12345e6780"))
    assert script.compare(old, new) == ["runs.csv: [0].run_id: 12345e6780 -> 12345e6789"]
    (old / "runs.csv").write_text((new / "runs.csv").read_text())
    (other / "runs" / "plan.json").rename(other / "plan.json")
    assert "runs/plan.json: only in the old" in script.compare(old, other)
    for folder, code, last in (
        (new, 0, "2 files, 7 numbers, 0 differences"),
        (other, 1, "2 files, 7 numbers, 3 differences"),
    ):
        command = [sys.executable, str(SCRIPT), str(old), str(folder), "--measured"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout.splitlines()[-1]) == (code, last)
