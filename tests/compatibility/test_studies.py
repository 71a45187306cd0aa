"""Studies of 0.1: a finished one is only read, an interrupted one goes on to the same numbers."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import polars as pl
import pytest

from moelab.files import read_json
from moelab.fitting import load_fits

pytestmark = pytest.mark.slow
AT_WORK = "4a30f7a587821b8d"
"""The run that was being trained when the study was killed."""
Answer = Callable[[str], Any]
Same = Callable[..., None]


def go_on(study: str) -> subprocess.CompletedProcess[str]:
    """The command of 0.1 again."""
    command = [sys.executable, "-m", "moelab", "study", "configs/trained/study.yaml", "--workers", "1", "--out", study]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def kept(reading: ModuleType, answer: Answer, v0_1: Path) -> dict[str, Any]:
    """How every run ended in the undisturbed study."""
    digests = answer("study_weights")
    done = reading.outcomes(v0_1 / "studies" / "finished" / "runs")
    assert len(done) == 11
    return {run_id: outcome | {"weights": digests[run_id]} for run_id, outcome in done.items()}


def test_an_interrupted_study_goes_on_to_the_same_numbers(
    workplace: Path,
    kept: dict[str, Any],
    reading: ModuleType,
    same_outcome: Same,
    same_kernels: bool,
    from_the_start: float,
) -> None:
    """Four runs had ended, one was at its tenth step under a dead worker's lease, the others were not begun."""
    finished, out = workplace / "studies" / "finished", workplace / "studies" / "interrupted"
    before = {path: path.stat().st_mtime_ns for path in out.glob("runs/*/record.json")}
    assert len(before) == 4
    done = go_on(str(out))
    assert done.returncode == 0, done.stderr
    found = reading.outcomes(out / "runs")
    planned = {each["run_id"] for each in read_json(finished / "verify.json")}
    assert set(found) == set(kept) if same_kernels else set(found) >= set(kept) - planned
    for run_id in set(found) & set(kept):
        same_outcome(kept[run_id], found[run_id], 1e-3 if run_id == AT_WORK else from_the_start)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    resumed = [path.parent.name for path in out.glob("runs/*/record.json") if read_json(path)["resumed"]]
    assert resumed == [AT_WORK]
    assert not list(out.rglob(".*lease*"))
    assert (out / "report.html").exists()
    tables = [pl.read_csv(folder / "runs.csv") for folder in (finished, out)]
    old, new = (table.drop(reading.MEASURED, strict=False).to_dicts() for table in tables)
    assert [row["run_id"] for row in new] == [row["run_id"] for row in old]
    for then, now in zip(old, new, strict=True):
        same_outcome(then, now, from_the_start)


DESIGN = ("config", "params_total", "params_active", "tokens", "train_flops", "loss", "mean_loss")
"""What a plan holds of a design whatever settles ties and gives rates."""


def intervals(design: dict[str, Any]) -> list[dict[str, float]]:
    """The predicted losses of a design, by law and their mean, each with the ends of its interval."""
    return [*design["loss"].values(), design["mean_loss"]]


def test_a_finished_study_is_only_read(workplace: Path, same_numbers: Same, same_keys: Same) -> None:
    """Its fits and its recommendation come out as they were; no run is trained, and none is needed but its record.

    Designs behind the first one, and the rules that give rates, may be others. Intervals know their distance from the
    runs, so they hold those of 0.1.
    """
    out = workplace / "studies" / "finished"
    fits, plan = load_fits(out / "fits.json"), read_json(out / "plan.json")
    stamps = {path: path.stat().st_mtime_ns for path in (out / "runs").rglob("*")}
    done = go_on(str(out))
    assert done.returncode == 0, done.stderr
    assert {path: path.stat().st_mtime_ns for path in (out / "runs").rglob("*")} == stamps
    found = read_json(out / "plan.json")
    same_keys(plan, found)
    assert [found[name] for name in ("n_designs", "n_feasible")] == [plan[name] for name in ("n_designs", "n_feasible")]
    old, new = ({name: each["candidates"][0][name] for name in DESIGN} for each in (plan, found))
    for then, now in zip(intervals(old), intervals(new), strict=True):
        low, high = then.pop("low"), then.pop("high")
        assert now["low"] <= low <= high <= now["high"]
    same_numbers(old, new, 1e-6)
    for law, fitted in load_fits(out / "fits.json").items():
        assert fitted.coefficients == pytest.approx(fits[law].coefficients, rel=1e-6)
