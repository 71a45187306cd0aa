"""Fitted laws as JSON: what `moelab fit --out` writes and every `--law FILE` reads."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from moelab.errors import InputError
from moelab.files import read_json, write_json
from moelab.fitting.fitted import FittedLaw
from moelab.fitting.influence import Influence
from moelab.fitting.prediction import Holdout
from moelab.fitting.residual_tests import ResidualTest
from moelab.fitting.widening import Widening
from moelab.laws import Law, all_laws, get_law, with_data_reuse
from moelab.laws.law_keys import law_from_formula
from moelab.laws.own_designs import as_fitted
from moelab.laws.reuse import SUFFIX


def fit_to_json(fitted: FittedLaw, draws: bool = True) -> dict[str, Any]:
    """Plain data; `fit_from_json` reads it back when the draws are kept."""
    result: dict[str, Any] = {
        "law": fitted.law.id,
        "n_runs": fitted.n_runs,
        "coefficients": {name: fitted.interval(name) for name in fitted.law.coefficients},
        "in_sample": fitted.in_sample,
        "holdout": asdict(fitted.holdout) if fitted.holdout else None,
        "objective": fitted.objective,
        "objective_kind": fitted.objective_kind,
        "starts": fitted.starts,
        "starts_agreeing": fitted.starts_agreeing,
        "at_bound": list(fitted.at_bound),
        "condition": fitted.condition if np.isfinite(fitted.condition) else None,
        "held": fitted.held,
        "free": fitted.free,
        "ranges": {name: list(limits) for name, limits in fitted.ranges.items()},
        "unidentified": list(fitted.unidentified),
        "coefficient_notes": {name: note for name, note in fitted.coefficient_notes().items() if note},
        "residual_tests": [test.to_dict() for test in fitted.residual_tests],
        "influence": None if fitted.influence is None else fitted.influence.to_dict(),
        "notes": list(fitted.notes),
        "diagnosis": list(fitted.diagnosis),
        "seed_noise": fitted.seed_noise,
        "interval_rel": fitted.interval_rel,
        "bootstrap": len(fitted.draws),
        "cpu_seconds": fitted.cpu_seconds,
    }
    if fitted.most_flops is not None:
        result["most_flops"] = fitted.most_flops
    if fitted.prior is not None:
        result["prior"] = dict(fitted.prior)
    if len(fitted.draws):
        result["widening"] = fitted.widening.to_dict()
    if fitted.law.definition is not None:
        result["definition"] = dict(fitted.law.definition)
    if draws:
        result["measured"] = fitted.measured.tolist()
        result["predicted"] = fitted.predicted.tolist()
        result["labels"] = list(fitted.labels)
        result["kinds"] = list(fitted.kinds)
        result["draws"] = fitted.draws.tolist()
        if fitted.weights is not None:
            result["weights"] = fitted.weights.tolist()
    return result


def fit_from_json(value: Mapping[str, Any]) -> FittedLaw:
    """The inverse of `fit_to_json`. Raises InputError naming what is missing."""
    try:
        law = _law_of(value)
        draws = np.asarray(value["draws"], float).reshape(-1, len(law.coefficients))
        if not all(np.isfinite(float(value["coefficients"][name]["value"])) for name in law.coefficients):
            raise ValueError("a coefficient is not a finite number")
        return FittedLaw(
            law=as_fitted(law, value["kinds"]),
            n_runs=int(value["n_runs"]),
            coefficients={name: float(value["coefficients"][name]["value"]) for name in law.coefficients},
            draws=draws,
            ranges={name: (float(low), float(high)) for name, (low, high) in value["ranges"].items()},
            objective=float(value["objective"]),
            objective_kind=str(value["objective_kind"]),
            starts=int(value["starts"]),
            starts_agreeing=int(value["starts_agreeing"]),
            at_bound=tuple(value["at_bound"]),
            condition=float("inf") if value["condition"] is None else float(value["condition"]),
            held=dict(value["held"]),
            in_sample=dict(value["in_sample"]),
            measured=np.asarray(value["measured"], float),
            predicted=np.asarray(value["predicted"], float),
            labels=tuple(value["labels"]),
            kinds=tuple(value["kinds"]),
            free=int(value["free"]),
            cpu_seconds=float(value["cpu_seconds"]),
            notes=(*value["notes"], *_older(value)),
            diagnosis=tuple(value.get("diagnosis", ())),
            unidentified=tuple(value.get("unidentified", ())),
            residual_tests=tuple(ResidualTest(**each) for each in value.get("residual_tests", ())),
            influence=Influence.from_dict(value["influence"]) if value.get("influence") else None,
            seed_noise=value.get("seed_noise"),
            interval_rel=value.get("interval_rel"),
            holdout=Holdout(**value["holdout"]) if value.get("holdout") else None,
            prior=value.get("prior"),
            most_flops=None if value.get("most_flops") is None else float(value["most_flops"]),
            weights=None if value.get("weights") is None else np.asarray(value["weights"], float),
            widening=Widening.from_dict(value.get("widening") or (value.get("prior") or {}).get("widening") or {}),
        )
    except KeyError as error:
        raise InputError(f"fit file: the key {error.args[0]!r} is missing") from None
    except (TypeError, ValueError, AttributeError) as error:
        raise InputError(f"fit file: {error}") from None


def _older(value: Mapping[str, Any]) -> list[str]:
    """A note on a file of a version whose intervals did not grow beyond the runs."""
    if not value["draws"] or "widening" in value or "widening" in (value.get("prior") or {}):
        return []
    return ["its file is of an older version: its intervals do not grow beyond the runs; fit the table again"]


def _law_of(value: Mapping[str, Any]) -> Law:
    """The law of a fit: known by its id, or one's own by the formula in the file or by a Python file at hand."""
    name, definition = str(value["law"]), value.get("definition")
    if not isinstance(definition, Mapping):
        return get_law(name)
    if "formula" in definition:
        law = law_from_formula(definition)
        return with_data_reuse(law) if name == law.id + SUFFIX else law
    known = all_laws().get(name.removesuffix(SUFFIX))
    if known is None or (known.definition or {}).get("sha256") != definition.get("sha256"):
        changed = "another version of " if known is not None else ""
        if "path" not in definition:
            raise InputError(f"{name}: is {changed}a function of Python; register it by moelab.register_law")
        raise InputError(f"{name}: was fitted with {changed}{definition['path']}; give it by --law-file")
    return get_law(name)


def save_fits(fits: Mapping[str, FittedLaw], path: str | Path) -> None:
    """Write `{"fits": {LAW_ID: ...}}` with all draws."""
    write_json(Path(path), {"fits": {law_id: fit_to_json(fitted) for law_id, fitted in fits.items()}})


def load_fits(path: str | Path) -> dict[str, FittedLaw]:
    """Read a fit file. Raises InputError when it is none."""
    value = read_json(Path(path), "fit file")
    if not isinstance(value, dict) or not isinstance(value.get("fits"), dict) or not value["fits"]:
        raise InputError(f'fit file: {path} holds no {{"fits": ...}}; write one with moelab fit --out')
    fits = {}
    for law_id, fitted in value["fits"].items():
        try:
            fits[law_id] = fit_from_json(fitted)
        except InputError as error:
            why = str(error).removeprefix("fit file: ").removeprefix(f"{law_id}: ")
            raise InputError(f"fit file {path}: {law_id}: {why}") from None
    return fits
