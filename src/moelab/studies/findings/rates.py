"""Learning rate and batch: the best rate for each batch, and how far the published rules are off; scaling ladders."""

import numpy as np

from moelab.experiments.ladder import BRANCH_OF
from moelab.fitting import Slice
from moelab.laws.catalogue import all_rules
from moelab.quantities import format_number
from moelab.report import Figure, Section, Table, figures
from moelab.runs import run_columns
from moelab.studies.findings.base import Evidence, Finding, diverged_warning, power
from moelab.studies.findings.slices import Curves, format_optimum
from moelab.studies.seeds import Design


def learning_rate_finding(found: Evidence) -> Finding:
    """Size, budget and batch at a time: the parabola in the logarithm of the rate, and the rules' rates beside it."""
    curves, sentences, rows, data = Curves(), [], [], {}
    several = {name: len({d.label(name) for d in found.designs}) > 1 for name in ("size", "budget")}

    def group_of(design: Design) -> str:
        parts = [design.label(name) for name in ("size", "budget") if several[name]]
        return ", ".join([*parts, f"batch {format_number(design.config.train.batch_tokens)}"])

    for name, designs in found.by(group_of).items():
        designs = sorted(designs, key=lambda d: d.config.train.learning_rate)
        x = [d.config.train.learning_rate for d in designs]
        fitted = curves.add(x, [d.loss for d in designs], name, "learning_rate")
        best = min(designs, key=lambda d: d.loss)
        at = float(fitted.optimum["value"] or 0) if isinstance(fitted, Slice) else best.config.train.learning_rate
        rules = _rules(best)
        text = f"{name}: the best learning rate is {format_optimum(fitted.optimum)}" if isinstance(fitted, Slice) else (
            f"{name}: the best learning rate tried is {at:.3g} (no optimum can be fitted: {fitted})"
        )  # fmt: skip
        off = ", ".join(f"{all_rules()[rule].title} {value / at:.2g} times that" for rule, value in rules.items())
        sentences.append(f"{text}; the rules give: {off}.")
        data[name] = {"best": at, "losses": {f"{r:g}": d.loss for r, d in zip(x, designs, strict=True)}, "rules": rules}
        rows += [[name, d.config.train.learning_rate, d.record.tokens, d.loss, d.seeds] for d in designs]
    section = Section(
        "Learning rate and batch",
        text=["A parabola in the logarithm of the rate is fitted for each batch and compared with each rule's rate."],
        figures=[Figure(curves.figure("learning rate"), "Loss against learning rate.")],
        tables=[Table(["", "learning rate", "tokens", "loss", "seeds"], rows)],
        warnings=diverged_warning(found),
    )
    return Finding(name=found.experiment.name, sentences=sentences, section=section, data=data)


def _rules(design: Design) -> dict[str, float]:
    columns = run_columns(design.config)
    kind = "tian2025-moe" if design.config.model.moe else "tian2025-dense"
    found = {}
    for name in ("steplaw2025", "deepseek2024", kind):
        rule = all_rules()[name]
        found[name] = float(rule.apply(**{each: columns[each] for each in rule.needs})["learning_rate"])
    return found


def ladder_finding(found: Evidence) -> Finding:
    """The gain of each doubling of the tokens at each size, and the compute saved by branching shorter runs."""
    sentences, rows, data = [], [], {}
    for name, designs in found.by(_model).items():
        designs = sorted(designs, key=lambda d: d.record.tokens)
        rows += [[name, d.record.tokens, power(d.record.train_flops), d.loss, d.seeds] for d in designs]
        data[name] = [[d.record.tokens, d.loss] for d in designs]
        if len(designs) > 1:
            x, y = np.log2([d.record.tokens for d in designs]), [d.loss for d in designs]
            slope = float(np.polyfit(x, y, 1)[0])
            sentences.append(f"{name}: each doubling of the tokens changes the loss by {slope:+.3f} nats.")
    sentences += _saved(found)
    keep = ("params_active", "params_total", "tokens", "kind", "n_experts")
    points = [
        {"label": d.config.name, "loss": d.loss, **{field: getattr(d.record, field) for field in keep}}
        for d in found.designs
    ]
    section = Section(
        "Scaling ladder",
        text=["Sizes x tokens; with branching, the shorter runs are decays off one trunk of constant learning rate."],
        figures=[Figure(figures.loss_by_size(points) if points else None, "Loss by size and by tokens.")],
        tables=[Table(["model", "tokens", "FLOPs", "loss", "seeds"], rows)],
        warnings=diverged_warning(found),
    )
    return Finding(name=found.experiment.name, sentences=sentences, section=section, data=data)


def _model(design: Design) -> str:
    r = design.record
    experts = f", {r.n_experts} experts" if r.kind == "moe" else ""
    return f"{format_number(r.params_active)} active parameters{experts}"


def _saved(found: Evidence) -> list[str]:
    branches = [d for d in found.designs if BRANCH_OF in d.config.labels]
    if not branches:
        return []
    alone, shared = 0.0, 0.0
    for designs in found.by(lambda d: d.label(BRANCH_OF)).values():
        starts = [d.config.parent.step for d in designs if d.config.parent]
        per_step = designs[0].record.flops_per_token * designs[0].record.batch_tokens
        alone += sum(d.record.train_flops for d in designs)
        decays = sum(d.config.train.steps - d.config.parent.step for d in designs if d.config.parent)
        shared += per_step * (max(starts, default=0) + decays)
    return [f"Branching cost {shared / alone:.0%} of training each run from the start."]
