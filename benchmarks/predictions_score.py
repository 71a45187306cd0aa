"""The eight predicted runs beside what was measured: errors, intervals, and the recommended MoE against the others.

    python benchmarks/predictions_score.py

Reads results/predictions/predictions.json and the finished records in results/predictions/runs. Refuses records that
began before the predictions were committed. Margins are the losses of the other designs minus that of the recommended
MoE: their 80 % intervals are taken from the draws of the committed fits; `measured_low` and `measured_high` have the
noise between seeds, too. They are of the present code: the committed file holds no margins.
"""

import json
import subprocess
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from predictions import PLACE, STUDY, draws_of

from moelab.architecture import ModelConfig
from moelab.errors import InputError
from moelab.fitting import FittedLaw, load_fits
from moelab.planning.uncertainty import quantiles
from moelab.runs import RunRecord
from moelab.studies import StudyConfig, load_study

NOISES = 20
"""Draws of the noise between seeds for each draw of a law."""


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


def margins(document: Mapping[str, Any], fits: Mapping[str, FittedLaw], study: StudyConfig) -> dict[str, Any]:
    """By role, the ensemble's loss minus the recommended MoE's: the value and its 80 % interval."""
    designs: dict[str, list[np.ndarray]] = {}
    rows, weights = document["runs"], document["weights"]
    for row, entry in zip(rows, study.runs, strict=True):
        model, tokens = ModelConfig.parse(entry.set["model"]), float(row["tokens"])
        drawn = []
        for fitted in fits.values():
            at = fitted.variables_of(model, tokens, study.base["train"]["seq_len"], float(row["unique_tokens"]))
            drawn.append(draws_of(fitted, fits, at.variables, model, tokens))
        designs.setdefault(row["role"], drawn)
    shares = [np.full(len(losses), weights[name] / len(losses)) for name, losses in zip(fits, drawn, strict=True)]
    values = {row["role"]: row["ensemble"]["value"] for row in rows}
    seeds = {role: sum(row["role"] == role for row in rows) for role in designs}
    noise = max((fitted.seed_noise or {"rel": 0.0})["rel"] for fitted in fits.values())
    found = {}
    for role in list(designs)[1:]:
        gaps = [other - mine for other, mine in zip(designs[role], designs["recommended"], strict=True)]
        joined, weight = np.concatenate(gaps), np.concatenate(shares)
        low, high = quantiles(joined, weight)
        spread = noise * values["recommended"] * np.sqrt(1 / seeds["recommended"] + 1 / seeds[role])
        noisy = np.repeat(joined, NOISES) + spread * np.random.default_rng(0).standard_normal(NOISES * len(joined))
        wide = quantiles(noisy, np.repeat(weight, NOISES))
        found[role] = {"value": values[role] - values["recommended"], "low": low, "high": high}
        found[role] |= {"measured_low": wide[0], "measured_high": wide[1]}
    return found


def measured_margins(runs: list[Mapping[str, Any]], records: list[RunRecord]) -> dict[str, float]:
    """By role, the measured loss minus the recommended MoE's, means over seeds."""
    measured = {record.run_id: record.loss for record in records if record.loss is not None}
    means: dict[str, float] = {}
    for role in dict.fromkeys(run["role"] for run in runs):
        losses = [measured[run["run_id"]] for run in runs if run["role"] == role and run["run_id"] in measured]
        if losses:
            means[role] = float(np.mean(losses))
    return {role: loss - means["recommended"] for role, loss in means.items() if role != "recommended"}


def main() -> None:
    """Print the score."""
    place = PLACE / "predictions.json"
    document = json.loads(place.read_text(encoding="utf-8"))
    runs = document["runs"]
    records, committed = read_records(PLACE / "runs"), committed_at(place)
    wrong = before(records, runs, committed) if committed else [f"{place.name} is not committed"]
    if wrong:
        raise InputError("; ".join(wrong))
    found = score(runs, records)
    measured = measured_margins(runs, records)
    predicted = margins(document, load_fits(PLACE / "fits.json"), load_study(str(STUDY)))
    found["margins"] = {role: {**margin, "measured": measured.get(role)} for role, margin in predicted.items()}
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
