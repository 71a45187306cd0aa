"""What one law predicts for one design, and the notes that stand below such predictions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from moelab.architecture import ModelConfig, count_parameters
from moelab.fitting.blanks import DENSE
from moelab.fitting.carried_notes import carried_notes, unit_notes
from moelab.fitting.columns import columns_of, read_from
from moelab.fitting.designs import design_variables
from moelab.fitting.fitted import FittedLaw
from moelab.fitting.fitted_kinds import beyond_runs, kind_of_runs
from moelab.fitting.floor import FloorPart
from moelab.fitting.implausible import VOCABULARY, guessing_loss, meaningless, value_notes
from moelab.fitting.intervals import outside_note
from moelab.fitting.owed import owed_notes
from moelab.fitting.sources import Source
from moelab.fitting.table_experts import width_notes
from moelab.fitting.table_mixed import SIZES
from moelab.laws import Law
from moelab.laws.law import MOE_VARIABLES

_SET = "set granularity: the dense feed-forward's width over an expert's"
Trained = tuple[ModelConfig, float]
"""A model and its training tokens."""


@dataclass(frozen=True, kw_only=True)
class LawPrediction:
    """What one law predicts for one design: its `kind` (loss in nats per token, for most), value, p10 and p90 (None
    without draws), and the largest log10 distance outside the fitted range (None: unknown; 0 or less: inside).

    `floor` are the losses across the floor's posterior; with a second design (`against`), those of both."""

    kind: str
    value: float
    low: float | None
    high: float | None
    extrapolation: float | None
    floor: tuple[FloorPart, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain data: an entry of `moelab predict --json`."""
        ends = {"value": self.value, "low": self.low, "high": self.high}
        floor = [part.to_dict() for part in self.floor]
        return {"kind": self.kind, self.kind: ends, "extrapolation": self.extrapolation, "floor": floor}


def prediction_notes(
    sources: Mapping[str, Source],
    found: Mapping[str, LawPrediction],
    given: Mapping[str, float],
    models: Sequence[Trained],
) -> tuple[str, ...]:
    """What to know of the predictions of a design, `given` by its variables or as the first of `models`; a second is
    the one that it is compared with."""
    model, tokens = models[0] if models else (None, 0.0)
    fits = {name: source for name in found if isinstance(source := sources[name], FittedLaw)}
    notes = [line for each in fits.values() for line in unit_notes(each.law, each.ranges, each.measured)]
    for name, fitted in fits.items():
        notes += carried_notes(name, fitted.law, fitted.kinds, fitted.holdout)
    moe = any(each.moe is not None for each, _ in models) or _moe(given) is not None
    notes += [line for name in found for line in width_notes(columns_of(given), law_of(sources[name]), _SET)]
    for name, fitted in fits.items():
        notes += owed_notes(name, fitted.prior, moe or kind_of_runs(fitted.ranges) == "MoE")
        for variables in _variables(fitted, given, models):
            notes += beyond_runs(name, fitted.law, fitted.ranges, fitted.prior, variables)
    counts = None if model is None else count_parameters(model)
    size = {} if counts is None else {"params_total": float(counts.params_total), "tokens": tokens}
    if unread := _unread([law_of(sources[name]) for name in found], given):
        notes.append(f"{', '.join(unread)}: no law here reads {'it' if len(unread) == 1 else 'them'}")
    notes += value_notes(given or size, list(fits.values()))
    vocabulary = VOCABULARY if model is None else model.vocab_size
    losses = {name: each.value for name, each in found.items() if each.kind == "loss"}
    guesses = {
        name: max([guessing_loss(vocabulary, name not in fits), *(fits[name].measured if name in fits else ())])
        for name in losses
    }
    notes += meaningless(losses, guesses, {name: each.extrapolation for name, each in found.items()})
    for name, each in found.items():
        law = law_of(sources[name])
        if not law.covers_moe and (why := _moe(given)):
            notes.append(f"{name} describes dense models only, and {why} is a MoE model: this is a dense model's loss")
        notes += outside_note(f"{name}'s prediction", {"value": each.value, "low": each.low, "high": each.high})
    return tuple(dict.fromkeys(notes))


def law_of(source: Source) -> Law:
    """The law of a fit, or the published one."""
    return source.law if isinstance(source, FittedLaw) else source


def _variables(fitted: FittedLaw, given: Mapping[str, float], models: Sequence[Trained]) -> list[dict[str, float]]:
    """The variables of each design in a fit's own terms."""
    if not models:
        numbers = design_variables(columns_of(given), fitted.law, tuple(fitted.ranges))
        return [{name: float(values[0]) for name, values in numbers.items()}]
    read = [fitted.variables_of(model, tokens).variables for model, tokens in models]
    return [{name: float(value) for name, value in numbers.items()} for numbers in read]


def _unread(laws: Sequence[Law], values: Mapping[str, float]) -> list[str]:
    """The given variables that no variable of a law, nor of its ranges, is read from; those of size and experts have
    other notes."""
    columns = columns_of(values)
    read = {each for law in laws for name in law.variables for each in read_from(columns, name)}
    ranges = {name for law in laws for name in law.ranges}
    return sorted(set(values) - read - ranges - {*MOE_VARIABLES, *SIZES})


def _moe(values: Mapping[str, float]) -> str | None:
    """The given variable that shows a MoE model; None for a dense one, or where none shows it."""
    for name in MOE_VARIABLES:
        dense = DENSE.get(name)
        if name in values and dense is not None and name not in ("top_k", "granularity") and values[name] != dense:
            return f"{name}={values[name]:g}"
    total, active = values.get("params_total"), values.get("params_active")
    if total is not None and active is not None and active < 0.99 * total:
        return f"params_active={active:g} of params_total={total:g}"
    return None
