"""Mixture of Tokens (arXiv 2310.15961): how soon it reaches the dense loss, and its loss without leaks."""

from typing import Any

import numpy as np

from moelab.report import Fact, Figure, Section, Table, figures
from moelab.studies.findings.base import Evidence, Finding, diverged_warning, judge_margin, power
from moelab.studies.seeds import Design

_NAMES = {"dense": "dense", "token choice": "token choice", "mixture": "MoT", "transition": "MoT, then token choice"}


def mixture_of_tokens_finding(found: Evidence) -> Finding:
    """Budget by budget: the share of the steps to the dense final loss, and the leak-free losses at the end."""
    sentences, charts, rows, facts, data = [], [], [], [], {}
    for budget, designs in found.by(lambda d: d.label("budget")).items():
        dense = next((d for d in designs if d.label("role") == "dense"), None)
        curve = [row for d in designs for row in _curve(d)]
        charts.append(Figure(figures.learning_curves(curve), f"{budget}: validation loss as trained."))
        numbers = []
        for design in designs:
            share = None if dense is None or design is dense else reached(design.record.loss_curve, dense.loss)
            rows.append(_row(budget, design, share))
            numbers.append(
                {"design": _named(design), "loss": design.loss, "leak_free": _leak_free(design), "share": share}
            )
            if dense is not None and design.label("role") == "mixture":
                sentences += _sentences(found, budget, design, dense, share)
                if share is not None:
                    facts.append(Fact(f"{_named(design)} needs", f"{share:.0%}", "of the steps to the dense loss"))
            if dense is not None and design.label("role") == "transition":
                sentences.append(_after_transition(found, design, dense, designs))
        data[budget] = numbers
    section = Section(
        "Mixture of Tokens",
        text=[
            "Experts see mixtures of the tokens at one position of several sequences, at the FLOPs of the dense "
            "feed-forward (plus the mixing). The loss as trained leaks between sequences. The loss to compare is the "
            "one without leaks: with mixing off, or after the last steps were trained as token choice."
        ],
        figures=charts,
        tables=[
            Table(
                [
                    "budget",
                    "model",
                    "experts",
                    "parameters",
                    "FLOPs",
                    "loss as trained",
                    "loss without leaks",
                    "steps to dense",
                ],
                rows,
            )
        ],
        warnings=diverged_warning(found),
    )
    return Finding(name=found.experiment.name, sentences=sentences, section=section, facts=facts[:1], data=data)


def reached(curve: list[dict[str, float]], loss: float) -> float | None:
    """The share of a run's steps after which its validation loss first is at most `loss`, linear between evaluations.

    None where it never is.
    """
    if not curve:
        return None
    steps, losses = np.array([row["step"] for row in curve]), np.array([row["loss"] for row in curve])
    below = np.flatnonzero(losses <= loss)
    if not len(below):
        return None
    i = int(below[0])
    if i == 0:
        return float(steps[0] / steps[-1])
    part = (losses[i - 1] - loss) / (losses[i - 1] - losses[i])
    return float((steps[i - 1] + part * (steps[i] - steps[i - 1])) / steps[-1])


def _named(design: Design) -> str:
    name = _NAMES[design.label("role")]
    mixtures = design.label("mixtures", "0")
    return name if mixtures in ("0", "1") else f"{name}, {mixtures} mixtures"


def _leak_free(design: Design) -> float:
    """The loss without leaks; equal to the loss where nothing leaks."""
    found = design.record.loss_leak_free
    return design.loss if found is None else found


def _sentences(found: Evidence, budget: str, design: Design, dense: Design, share: float | None) -> list[str]:
    name = _named(design)
    aim = f"the dense model's final loss of {dense.loss:.3f}"
    if share is None:
        text = f"With {budget} {name} never reaches {aim}: it ends at {design.loss:.3f}"
    else:
        text = f"With {budget} {name} reaches {aim} after {share:.0%} of the steps"
        text += f" and ends ahead by {found.judged(design, dense)}"
    leak_free = design.record.loss_leak_free
    if leak_free is None:
        return [text + "."]
    return [f"{text}.", f"Its loss as trained leaks; with mixing off the same weights have a loss of {leak_free:.3f}."]


def _after_transition(found: Evidence, design: Design, dense: Design, designs: list[Design]) -> str:
    final = _leak_free(design)
    who = "ahead of" if final < dense.loss else "behind"
    margin = judge_margin(dense.loss - final, found.noise, design.seeds, dense.seeds)
    text = f"{_named(design)} for the last steps ends, without leaks, at {final:.3f}, {who} dense by {margin}"
    same = design.label("mixtures")
    scratch = next((d for d in designs if d.label("role") == "token choice" and d.label("mixtures") == same), None)
    return f"{text}; token choice from the start reaches {scratch.loss:.3f}." if scratch else f"{text}."


def _curve(design: Design) -> list[dict[str, Any]]:
    kind = "dense" if design.label("role") == "dense" else "moe"
    name = _named(design)
    return [
        {"run": name, "label": name, "kind": kind, "tokens": row["tokens"], "loss": row["loss"]}
        for row in design.record.loss_curve
    ]


def _row(budget: str, design: Design, share: float | None) -> list[Any]:
    r, moe = design.record, design.config.model.moe
    reach = "never" if share is None else f"{share:.0%}"
    reach = "–" if design.label("role") == "dense" else reach
    experts = moe.n_experts if moe else None
    return [
        budget,
        _named(design),
        experts,
        r.params_total,
        power(r.train_flops),
        design.loss,
        _leak_free(design),
        reach,
    ]
