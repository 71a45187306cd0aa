"""IsoFLOP slices and Abnar's surface (arXiv 2501.12370): the best size at each sparsity, and the best sparsity."""

from typing import Any

import numpy as np

from moelab.errors import InputError
from moelab.fitting import Slice, Surface, isoflop_surface
from moelab.quantities import format_number
from moelab.report import Fact, Figure, Section, Table
from moelab.studies.findings.base import Evidence, Finding, diverged_warning
from moelab.studies.findings.slices import Curves, format_optimum
from moelab.studies.seeds import Design


def isoflop_finding(found: Evidence) -> Finding:
    """Budget by budget: a parabola per sparsity, and the surface over both."""
    sentences, figures, rows, data = [], [], [], {}
    facts: list[Fact] = []
    optima: dict[str, list[tuple[float, float]]] = {}
    for budget, designs in found.by(lambda d: d.label("budget")).items():
        curves, slices = Curves(), {}
        for sparsity, group in _sorted(designs).items():
            x = [float(d.record.params_total) for d in group]
            slices[sparsity] = curves.add(x, [d.loss for d in group], _named(sparsity), "params_total")
            rows.append(_row(budget, sparsity, group, slices[sparsity]))
            fitted = slices[sparsity]
            if isinstance(fitted, Slice) and fitted.optimum["value"]:
                optima.setdefault(_named(sparsity), []).append((group[0].record.train_flops, fitted.optimum["value"]))
        caption = f"{budget}: loss against total parameters, a curve per sparsity S."
        figures.append(Figure(curves.figure("total parameters"), caption))
        surface = _surface(designs)
        if not isinstance(surface, str):
            figures.append(Figure(surface.plot(), f"{budget}: the surface fitted to these runs, and its lowest point."))
        sentences += _sentences(found, budget, designs, slices, surface)
        facts.append(_fact(budget, designs))
        data[budget] = {
            "slices": {_named(s): _plain(fitted) for s, fitted in slices.items()},
            "surface": _plain_surface(surface),
            "losses": [[d.record.params_total, d.record.sparsity, d.loss] for d in designs],
        }
    sentences += _exponents(optima)
    section = Section(
        "Size and sparsity at equal compute",
        text=[
            "All runs of a budget have the same training FLOPs: a smaller or sparser model sees more tokens. A "
            "parabola in the logarithm of the size is fitted for each sparsity S = 1 - K/E, and a polynomial surface "
            "over both, with its degrees chosen by cross-validation."
        ],
        figures=figures,
        tables=[Table(["budget", "S", "sizes", "best size", "active there", "loss there", "best run"], rows)],
        warnings=diverged_warning(found),
    )
    return Finding(name=found.experiment.name, sentences=sentences, section=section, facts=facts[-1:], data=data)


def _sorted(designs: list[Design]) -> dict[float, list[Design]]:
    groups: dict[float, list[Design]] = {}
    for design in designs:
        groups.setdefault(design.record.sparsity, []).append(design)
    return {s: sorted(groups[s], key=lambda d: d.record.params_total) for s in sorted(groups)}


def _named(sparsity: float) -> str:
    return "dense" if sparsity == 0 else f"S = {sparsity:.3g}"


def _surface(designs: list[Design]) -> Surface | str:
    """Abnar's surface, or why there is none."""
    columns = ([d.record.params_total for d in designs], [d.record.sparsity for d in designs])
    try:
        return isoflop_surface(*columns, [d.loss for d in designs], max_degree=3)
    except InputError as error:
        return str(error)


def _plain_surface(surface: Surface | str) -> dict[str, Any]:
    if isinstance(surface, str):
        return {"why_none": surface}
    return {
        "optimum": surface.optimum(),
        "at_edge": surface.at_edge(),
        "degrees": surface.degrees,
        "correlation": surface.correlation,
        "n_points": surface.n_points,
    }


def _sentences(
    found: Evidence, budget: str, designs: list[Design], slices: dict[float, Slice | str], surface: Surface | str
) -> list[str]:
    best = min(designs, key=lambda d: d.loss)
    dense = [d for d in designs if d.record.sparsity == 0]
    text = (
        f"With {budget} the best run is {_named(best.record.sparsity)} with {format_number(best.record.params_total)} "
    )
    text += f"parameters ({format_number(best.record.params_active)} active) at a loss of {best.loss:.3f}"
    if dense and best.record.sparsity > 0:
        baseline = min(dense, key=lambda d: d.loss)
        text += f"; the best dense run is behind by {found.judged(best, baseline)}"
    sentences = [text + "."]
    fitted = {s: each for s, each in slices.items() if isinstance(each, Slice)}
    if len(fitted) > 1:
        sentences.insert(0, _trend(budget, designs, fitted))
    if not isinstance(surface, str):
        at = surface.optimum()
        sparsity, size = format_optimum(at["sparsity"]), format_optimum(at["params_total"])
        where = f"The surface is lowest at S = {sparsity} and {size} parameters"
        edge = [name.replace("params_total", "size") for name in surface.at_edge()]
        sentences.append(
            where + (f", at the edge of the runs in {' and '.join(edge)}: the best may lie beyond." if edge else ".")
        )
    return sentences


def _trend(budget: str, designs: list[Design], fitted: dict[float, Slice]) -> str:
    """From the least sparsity fitted to the greatest: loss, total and active size at the parabolas' lowest points."""
    low, high = min(fitted), max(fitted)
    first, last = fitted[low], fitted[high]
    losses = [float(each.loss_at_optimum["value"] or 0) for each in (first, last)]
    active = [float(fitted[s].optimum["value"] or 0) * _share(designs, s) for s in (low, high)]
    sizes = [format_optimum(each.optimum) for each in (first, last)]
    way = "falls" if losses[1] < losses[0] else "rises"
    return (
        f"At each sparsity's best size of {budget} the loss {way} from {losses[0]:.3f} ({_named(low)}) to "
        f"{losses[1]:.3f} ({_named(high)}), the total size moves from {sizes[0]} to {sizes[1]} "
        f"parameters and the active one from about {format_number(active[0])} to {format_number(active[1])}."
    )


def _share(designs: list[Design], sparsity: float) -> float:
    """Active over total parameters at one sparsity, all parameters counted, over its runs."""
    return float(
        np.mean([d.record.params_active / d.record.params_total for d in designs if d.record.sparsity == sparsity])
    )


def _exponents(optima: dict[str, list[tuple[float, float]]]) -> list[str]:
    found = []
    for name, pairs in optima.items():
        if len({c for c, _ in pairs}) > 1:
            slope = np.polyfit(np.log([c for c, _ in pairs]), np.log([n for _, n in pairs]), 1)[0]
            found.append(f"C^{slope:.2f} ({name}, {len(pairs)} budgets)")
    return [f"The best total size grows as {', '.join(found)}."] if found else []


def _fact(budget: str, designs: list[Design]) -> Fact:
    best = min(designs, key=lambda d: d.loss)
    note = f"{format_number(best.record.params_total)} parameters, {budget}"
    return Fact("Best sparsity tried", _named(best.record.sparsity).removeprefix("S = "), note)


def _row(budget: str, sparsity: float, group: list[Design], fitted: Slice | str) -> list[Any]:
    best = min(group, key=lambda d: d.loss)
    at: list[str | None] = [None, None, None]
    if isinstance(fitted, Slice):
        value = float(fitted.optimum["value"] or 0)
        at = [
            format_optimum(fitted.optimum),
            format_number(value * _share(group, sparsity)),
            f"{fitted.loss_at_optimum['value']:.3f}",
        ]
    run = f"{format_number(best.record.params_total)}: {best.loss:.3f}"
    return [budget, _named(sparsity), len(group), *at, run]


def _plain(fitted: Slice | str) -> dict[str, Any]:
    if isinstance(fitted, str):
        return {"why_none": fitted}
    return {"params_total": fitted.optimum, "loss": fitted.loss_at_optimum}
