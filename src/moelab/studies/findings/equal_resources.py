"""Mixture-of-Experts against dense at equal resources (arXiv 2506.12119): the best activation rate, and the margin."""

from typing import Any

from moelab.fitting import Slice
from moelab.report import Fact, Figure, Section, Table
from moelab.studies.findings.base import Evidence, Finding, diverged_warning, power
from moelab.studies.findings.slices import Curves, format_optimum
from moelab.studies.seeds import Design

_NAMES = {"fresh": "MoE, fresh text", "strict": "MoE, strict reuse", "loose": "MoE, loose reuse"}


def equal_resources_finding(found: Evidence) -> Finding:
    """Budget by budget: loss over the activation rate, and the verdict against dense at C and 2C."""
    sentences, figures, rows, facts, data = [], [], [], [], {}
    for budget, designs in found.by(lambda d: d.label("budget")).items():
        dense = {d.label("times"): d for d in designs if d.label("role") == "dense"}
        moes = {
            reuse: sorted((d for d in designs if d.label("reuse") == reuse), key=_rate)
            for reuse in _NAMES
            if any(d.label("reuse") == reuse for d in designs)
        }
        curves = Curves()
        fitted = {
            reuse: curves.add([_rate(d) for d in group], [d.loss for d in group], _NAMES[reuse], "activation_rate")
            for reuse, group in moes.items()
        }
        rates = [_rate(d) for group in moes.values() for d in group]
        for times, design in dense.items():
            curves.level(design.loss, min(rates, default=0.1), 1.0, f"dense, {_cost(times)}", x=1.0)
        figures.append(Figure(curves.figure("activation rate"), f"C = {budget}; lines: dense models of equal size."))
        sentences += _best_rate(found, budget, moes, fitted) + _verdicts(found, budget, moes, dense)
        if moes and dense:
            best = min((d for group in moes.values() for d in group), key=lambda d: d.loss)
            facts.append(Fact("Best activation rate", f"{_rate(best):.2g}", f"tried, at {budget}"))
        rows += [_row(budget, d) for d in designs]
        data[budget] = {
            "moe": {reuse: [[_rate(d), d.loss] for d in group] for reuse, group in moes.items()},
            "dense": {times: d.loss for times, d in dense.items()},
            "optimum": {
                r: each.optimum if isinstance(each, Slice) else {"why_none": each} for r, each in fitted.items()
            },
        }
    has_dense = any(d.label("role") == "dense" for d in found.designs)
    section = Section(
        "Equal parameters, compute and data" if has_dense else "Activation rate at equal parameters and compute",
        text=[
            "All models have the same total parameters and the same training compute (one dense model has twice as "
            "much). A MoE costs less compute per token and so processes more tokens. They are fresh text; with strict "
            "reuse only the tokens that the dense model sees; with loose reuse half of its own, twice. Each epoch has "
            "a new order."
        ],
        figures=figures,
        tables=[
            Table(
                ["budget", "model", "activation rate", "parameters", "tokens", "epochs", "FLOPs", "loss", "seeds"], rows
            )
        ],
        warnings=diverged_warning(found),
    )
    return Finding(name=found.experiment.name, sentences=sentences, section=section, facts=facts[-1:], data=data)


def _rate(design: Design) -> float:
    return design.record.activation_rate


def _cost(times: str) -> str:
    return "C" if times == "1" else f"{times}C"


def _best_rate(
    found: Evidence, budget: str, moes: dict[str, list[Design]], fitted: dict[str, Slice | str]
) -> list[str]:
    sentences = []
    for reuse, group in moes.items():
        if len(group) < 3:
            continue
        best, slice_ = min(group, key=lambda d: d.loss), fitted[reuse]
        name = _NAMES[reuse].split(", ")[1]
        if isinstance(slice_, Slice):
            text = (
                f"With {budget} and {name} the loss is lowest at an activation rate of {format_optimum(slice_.optimum)}"
            )
        else:
            text = f"With {budget} and {name} the best rate tried is {_rate(best):.2g}"
            text += f", but no optimum can be fitted: {slice_}"
        worst = max(group, key=lambda d: d.loss)
        sentences.append(f"{text}; the worst rate tried, {_rate(worst):.2g}, loses {found.judged(best, worst)}.")
    return sentences


def _verdicts(found: Evidence, budget: str, moes: dict[str, list[Design]], dense: dict[str, Design]) -> list[str]:
    sentences = []
    for reuse, group in moes.items():
        best = min(group, key=lambda d: d.loss)
        who = f"the MoE (rate {_rate(best):.2g}, {_NAMES[reuse].split(', ')[1]})"
        parts = []
        for times, baseline in dense.items():
            ahead, behind = (best, baseline) if best.loss < baseline.loss else (baseline, best)
            verb = "beats" if ahead is best else "loses to"
            parts.append(f"{verb} dense trained with {_cost(times)} by {found.judged(ahead, behind)}")
        if parts:
            winners = [f"{_rate(d):.2g}" for d in group if "1" in dense and d.loss < dense["1"].loss]
            won = f"; rates that win at C: {', '.join(winners) or 'none'}" if len(group) > 2 else ""
            sentences.append(f"At equal parameters {who} {' and '.join(parts)}{won}.")
    return sentences


def _row(budget: str, design: Design) -> list[Any]:
    r = design.record
    dense = design.label("role") == "dense"
    name = f"dense, {_cost(design.label('times', '1'))}" if dense else _NAMES[design.label("reuse")]
    rate = None if dense else r.activation_rate
    return [budget, name, rate, r.params_total, r.tokens, r.epochs, power(r.train_flops), design.loss, design.seeds]
