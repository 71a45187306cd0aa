"""The eight predicted runs beside what was measured: errors, intervals, MoE against dense.

    python benchmarks/predictions_score.py

Reads results/predictions/predictions.json and the finished records in results/predictions/runs. Refuses records that
began before the predictions were committed.
"""

import json
import subprocess
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from moelab.errors import InputError
from moelab.runs import RunRecord

PLACE = Path(__file__).parents[1] / "results" / "predictions"


def committed_at(file: Path) -> str | None:
    """The time of the last commit of a file (ISO 8601); None where it is not committed as it stands."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words, "--", file.name], cwd=file.parent, capture_output=True, text=True).stdout

    return None if git("status", "--porcelain").strip() else git("log", "-1", "--format=%cI").strip() or None


def before(records: list[RunRecord], runs: list[Mapping[str, Any]], committed: str) -> list[str]:
    """What forbids calling these records predicted: unknown runs, no time of start, or one before the commit.

    `committed` is the time of the last commit of predictions.json (ISO 8601).
    """
    known, limit, wrong = {run["run_id"] for run in runs}, datetime.fromisoformat(committed), []
    for record in records:
        if record.run_id not in known:
            wrong.append(f"{record.run_id}: no prediction was made of it")
        elif record.started is None:
            wrong.append(f"{record.run_id}: its record has no time of start")
        elif datetime.fromisoformat(record.started) <= limit:
            wrong.append(f"{record.run_id}: began {record.started}, not after the commit of {committed}")
    return wrong


def read_records(folder: Path) -> list[RunRecord]:
    """The finished records of a folder."""
    return [
        RunRecord.model_validate(json.loads(path.read_text(encoding="utf-8"))) for path in sorted(folder.glob("*.json"))
    ]


def score(runs: list[Mapping[str, Any]], records: list[RunRecord]) -> dict[str, Any]:
    """Predicted beside measured of the runs that finished: errors, how many lie inside, MoE against dense."""
    measured = {record.run_id: record.loss for record in records if record.loss is not None}
    done = [run for run in runs if run["run_id"] in measured]
    result: dict[str, Any] = {"runs": len(runs), "finished": len(done), "predictors": {}}
    for name in ("ensemble", *sorted({law for run in done for law in run["laws"]})):
        ends = [
            (run["ensemble"] if name == "ensemble" else run["laws"].get(name), measured[run["run_id"]]) for run in done
        ]
        pairs = [(guess, loss) for guess, loss in ends if guess is not None]
        errors = [abs(guess["value"] / loss - 1) for guess, loss in pairs]
        inside = sum(guess["low"] <= loss <= guess["high"] for guess, loss in pairs)
        if pairs:
            result["predictors"][name] = {"mean_abs_rel": float(np.mean(errors)), "inside": inside, "of": len(pairs)}
    means = {
        role: [measured[run["run_id"]] for run in done if run["role"] == role] for role in ("recommended", "best_dense")
    }
    if all(means.values()):
        result["moe_ahead_by"] = float(np.mean(means["best_dense"]) - np.mean(means["recommended"]))
    return result


def main() -> None:
    """Print the score."""
    place = PLACE / "predictions.json"
    runs = json.loads(place.read_text(encoding="utf-8"))["runs"]
    records, committed = read_records(PLACE / "runs"), committed_at(place)
    wrong = before(records, runs, committed) if committed else [f"{place.name} is not committed"]
    if wrong:
        raise InputError("; ".join(wrong))
    print(json.dumps(score(runs, records), indent=1))


if __name__ == "__main__":
    main()
