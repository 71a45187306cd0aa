"""Smaller models trained longer (Yun et al., arXiv 2404.02852): their serving cost at equal loss."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from moelab.errors import InputError
from moelab.fitting import Slice
from moelab.quantities import format_number
from moelab.report import Fact, Figure, Section, Table
from moelab.serving import load_hardware, serve_one
from moelab.studies.findings.base import Evidence, Finding, diverged_warning
from moelab.studies.findings.slices import Curves, bounded_slice
from moelab.studies.seeds import Design

_GRID = 400


@dataclass(frozen=True)
class Ladder:
    """The sizes of one number of experts at one budget, small to large, with the cost of serving each.

    `sizes` are the dense backbones' parameters, `costs` dollars per million tokens of both directions.
    """

    experts: int
    designs: list[Design]
    sizes: list[float]
    costs: list[float]
    fitted: Slice | str

    @property
    def best(self) -> Design:
        """The loss-optimal size among those tried."""
        return min(self.designs, key=lambda d: d.loss)

    @property
    def least(self) -> tuple[float, float]:
        """Size and loss at the optimum: the parabola's, or the best run's."""
        if isinstance(self.fitted, Slice):
            return float(self.fitted.optimum["value"] or 0), float(self.fitted.loss_at_optimum["value"] or 0)
        return self.sizes[self.designs.index(self.best)], self.best.loss

    def size_at(self, loss: float) -> float | None:
        """The smallest size, within those tried, that reaches a loss; None where none does."""
        grid = np.geomspace(min(self.sizes), max(self.sizes), _GRID)
        if isinstance(self.fitted, Slice):
            losses = self.fitted.loss(grid)
        else:
            losses = np.interp(np.log(grid), np.log(self.sizes), [d.loss for d in self.designs])
        reached = np.flatnonzero(losses <= loss)
        return float(grid[reached[0]]) if len(reached) else None

    def cost_at(self, size: float) -> float:
        """Serving cost by interpolation in logarithms."""
        return float(np.exp(np.interp(np.log(size), np.log(self.sizes), np.log(self.costs))))


def overtraining_finding(found: Evidence) -> Finding:
    """Budget by budget: serving cost of each number of experts at the loss of the best with fewest experts."""
    sentences, figures, rows, facts, data = [], [], [], [], {}
    for budget, designs in found.by(lambda d: d.label("budget")).items():
        ladders = _ladders(found, designs)
        by_size, by_cost = Curves(), Curves()
        for ladder in ladders:
            losses, name = [d.loss for d in ladder.designs], _named(ladder.experts)
            by_size.add(ladder.sizes, losses, name, "params_dense")
            by_cost.points += [{"x": c, "loss": v, "group": name} for c, v in zip(ladder.costs, losses, strict=True)]
            by_cost.lines += [{"x": c, "loss": v, "group": name} for c, v in zip(ladder.costs, losses, strict=True)]
        figures += [
            Figure(
                by_size.figure("parameters of the dense backbone"),
                f"{budget}: loss against size, a curve per number of experts.",
            ),
            Figure(by_cost.figure("serving cost, dollars per million tokens"), f"{budget}: loss against serving cost."),
        ]
        texts, table, numbers = _compare(found, budget, ladders)
        sentences += texts
        rows += table
        data[budget] = numbers
        for ladder in ladders[1:]:
            if (at := numbers.get(_named(ladder.experts))) and at["cost_ratio"] is not None:
                facts.append(
                    Fact(f"{ladder.experts} experts serve at", f"{at['cost_ratio']:.0%}", "of dense, equal loss")
                )
    step = found.study.serving
    columns = [
        "budget",
        "experts",
        "best size",
        "loss there",
        "size at equal loss",
        "$/M tokens there",
        "against reference",
    ]
    section = Section(
        "Over-training for cheaper serving",
        text=[
            "Every run of a budget has the same training FLOPs; sizes are the dense backbone's, without embeddings. A "
            "model below its loss-optimal size sees more tokens, loses little and costs less to serve. "
            f"Serving is moelab's roofline on {step.hardware} ({step.traffic.prompt} prompt and {step.traffic.output} "
            "output tokens): for models this small its ratios are more reliable than its dollars."
        ],
        figures=figures,
        tables=[Table(columns, rows)],
        warnings=diverged_warning(found),
    )
    return Finding(name=found.experiment.name, sentences=sentences, section=section, facts=facts[-2:], data=data)


def _named(experts: int) -> str:
    return "dense" if experts == 1 else f"{experts} experts"


def _ladders(found: Evidence, designs: list[Design]) -> list[Ladder]:
    step = found.study.serving
    hardware = load_hardware(step.hardware)
    groups: dict[int, list[Design]] = {}
    for design in designs:
        groups.setdefault(int(design.label("experts")), []).append(design)
    dense = {d.label("size"): float(d.record.params_non_embedding) for d in groups.get(1, [])}
    ladders = []
    for experts in sorted(groups):
        group = sorted(groups[experts], key=lambda d: _dense_size(d, dense))
        sizes = [_dense_size(d, dense) for d in group]
        costs = [
            float(serve_one(d.config.model, step.traffic, hardware, step.gpu_price)["cost_per_million_tokens"])
            for d in group
        ]
        try:
            fitted: Slice | str = bounded_slice(sizes, [d.loss for d in group], "params_dense")
        except InputError as error:
            fitted = str(error)
        ladders.append(Ladder(experts, group, sizes, costs, fitted))
    return ladders


def _dense_size(design: Design, dense: dict[str, float]) -> float:
    """The dense backbone's parameters: its run's, or this model's with one expert per layer."""
    r = design.record
    known = dense.get(design.label("size"))
    if known is not None:
        return known
    extra = (r.n_experts - 1) * r.d_expert * 3 * r.d_model * design.config.model.n_moe_layers
    return float(r.params_non_embedding - extra)


def _compare(found: Evidence, budget: str, ladders: list[Ladder]) -> tuple[list[str], list[list[Any]], dict[str, Any]]:
    reference = ladders[0]
    size, loss = reference.least
    cost = reference.cost_at(size)
    sentences, rows = [], []
    data: dict[str, Any] = {"reference": {"experts": reference.experts, "size": size, "loss": loss, "cost": cost}}
    for ladder in ladders:
        at = size if ladder is reference else ladder.size_at(loss)
        price = None if at is None else ladder.cost_at(at)
        best_size, best_loss = ladder.least
        ratio = None if price is None else price / cost
        data[_named(ladder.experts)] = {
            "best_size": best_size,
            "best_loss": best_loss,
            "size_at_equal_loss": at,
            "cost_ratio": ratio,
            "losses": [[s, d.loss] for s, d in zip(ladder.sizes, ladder.designs, strict=True)],
        }
        rows.append(
            [budget, _named(ladder.experts), best_size, best_loss, at, price, None if ratio is None else f"{ratio:.0%}"]
        )
        if ladder is reference:
            sentences.append(
                f"With {budget} the best {_named(ladder.experts)} model has {format_number(size)} parameters without "
                f"embeddings and a loss of {loss:.3f}."
            )
        elif at is None or ratio is None:
            name = _named(ladder.experts).capitalize()
            sentences.append(
                f"{name} do not reach that loss at any size tried; {_margin(found, ladder.best, reference.best)}."
            )
        else:
            sentences.append(_equal_loss(found, ladder, reference, at, ratio))
    return sentences, rows, data


def _equal_loss(found: Evidence, ladder: Ladder, reference: Ladder, at: float, ratio: float) -> str:
    """The size and cost of a number of experts at the reference's loss, and its margin at its own best size."""
    name, (best_size, _) = _named(ladder.experts).capitalize(), ladder.least
    if at <= min(ladder.sizes) * 1.001:
        also = ", also their best: smaller ones were not tried" if best_size <= at * 1.001 else ""
        text = f"{name} reach it even at the smallest size tried ({format_number(at)}{also})"
    else:
        sizes = f"{format_number(at)} against {format_number(best_size)}"
        text = f"{name} reach it at {at / best_size:.0%} of their own best size ({sizes})"
    return f"{text} and serve at {ratio:.0%} of the cost; {_margin(found, ladder.best, reference.best)}."


def _margin(found: Evidence, design: Design, reference: Design) -> str:
    """The margin between the best runs."""
    ahead, behind = (design, reference) if design.loss < reference.loss else (reference, design)
    way = "ahead of" if ahead is design else "behind"
    losses = f"their best run ({design.loss:.3f}) is {way} the reference's ({reference.loss:.3f})"
    return f"{losses} by {found.judged(ahead, behind)}"
