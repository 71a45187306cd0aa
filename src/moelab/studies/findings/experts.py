"""Granularity (arXiv 2402.07871) and expansion (2202.01169): the loss along the sweep and of the dense baseline."""

import math
from typing import Any

import numpy as np

from moelab.fitting import Slice
from moelab.report import Fact, Figure, Section, Table
from moelab.studies.findings.base import Evidence, Finding, diverged_warning, power
from moelab.studies.findings.slices import Curves, format_optimum
from moelab.studies.seeds import Design


def granularity_finding(found: Evidence) -> Finding:
    """The best G at each budget, the loss of G = 1 against it, and the dense baseline."""
    curves, sentences, facts, rows, data = Curves(), [], [], [], {}
    optima: dict[str, float] = {}
    for (size, budget), designs in found.by(lambda d: (d.label("size"), d.label("budget"))).items():
        moes, dense = _split(designs)
        if not moes:
            continue
        name = _group(found, size, budget)
        x = [float(d.label("value")) for d in moes]
        fitted = curves.add(x, [d.loss for d in moes], name, "granularity")
        best = min(moes, key=lambda d: d.loss)
        if isinstance(fitted, Slice):
            optima[name] = float(fitted.optimum["value"] or 0)
        sentences.append(_best_g(found, name, fitted, best, moes))
        if dense is not None:
            curves.level(dense.loss, min(x), max(x), f"dense, {name}", x=min(x))
            sentences.append(_against_dense(found, best, dense, name))
        facts.append(Fact("Best granularity", _value(fitted, best), name))
        data[name] = _numbers(fitted, moes, dense)
        rows += [_row(name, "G", d) for d in designs]
    if len(optima) > 1:
        moves = ", ".join(f"{value:.2g} at {name}" for name, value in optima.items())
        sentences.insert(0, f"The best granularity is {moves}.")
    section = Section(
        "Granularity",
        text=[
            "Active parameters are fixed: a token uses G experts of width d_ff / G. A parabola in ln G is fitted to "
            "the runs of one budget; the interval is that of its lowest point."
        ],
        figures=[
            Figure(
                curves.figure("granularity G"),
                "Loss against granularity, a curve per budget; level lines: the dense baselines.",
            )
        ],
        tables=[Table(_COLUMNS, rows)],
        warnings=diverged_warning(found),
    )
    return Finding(name=found.experiment.name, sentences=sentences, section=section, facts=facts[-1:], data=data)


def expansion_finding(found: Evidence) -> Finding:
    """The gain of each doubling of the experts at each size, and whether the gain shrinks as models grow."""
    curves, sentences, rows, data = Curves(), [], [], {}
    slopes: list[tuple[float, float]] = []
    for (size, budget), designs in found.by(lambda d: (d.label("size"), d.label("budget"))).items():
        moes, dense = _split(designs)
        name = _group(found, size, budget)
        every = ([dense] if dense else []) + moes
        x = [1.0 if d is dense else float(d.label("value")) for d in every]
        curves.points += [{"x": a, "loss": d.loss, "group": name} for a, d in zip(x, every, strict=True)]
        curves.lines += [{"x": a, "loss": d.loss, "group": name} for a, d in sorted(zip(x, every, strict=True), key=_x)]
        rows += [_row(name, "X", d) for d in every]
        if len(every) < 3:
            continue
        slope = float(np.polyfit(np.log2(x), [d.loss for d in every], 1)[0])
        first = every[0].record
        slopes.append((float(first.params_active_non_embedding), slope))
        best = min(every, key=lambda d: d.loss)
        text = f"At {name} each doubling of the experts changes the loss by {slope:+.3f} nats on average"
        data[name] = {"nats_per_doubling": slope, "best": best.label("value") if best is not dense else "dense"}
        if dense is not None and best is not dense:
            text += f"; {best.label('value')} times the experts beat dense by {found.judged(best, dense)}"
        elif dense is not None:
            text += "; no number of experts beats the dense baseline"
        sentences.append(text + ".")
    if len(slopes) > 1:
        sentences.append(_trend(slopes))
    section = Section(
        "Expansion",
        text=["A layer has X times the experts while each token uses the same number; X = 1 is the dense baseline."],
        figures=[Figure(curves.figure("expansion X"), "Loss against expansion, a line per size and budget.")],
        tables=[Table(["", "X", *_COLUMNS[2:]], rows)],
        warnings=diverged_warning(found),
    )
    return Finding(name=found.experiment.name, sentences=sentences, section=section, data=data)


_COLUMNS = ["", "G", "experts", "width", "parameters", "active", "tokens", "FLOPs", "loss", "seeds"]


def _x(pair: tuple[float, Design]) -> float:
    return pair[0]


def _split(designs: list[Design]) -> tuple[list[Design], Design | None]:
    moes = [d for d in designs if d.label("value") != "dense"]
    dense = next((d for d in designs if d.label("value") == "dense"), None)
    return sorted(moes, key=lambda d: float(d.label("value"))), dense


def _group(found: Evidence, size: str, budget: str) -> str:
    """The budget, with the size where there are several."""
    several = len({d.label("size") for d in found.designs}) > 1
    return f"{size}, {budget}" if several else budget


def _best_g(found: Evidence, name: str, fitted: Slice | str, best: Design, moes: list[Design]) -> str:
    coarse = moes[0]
    if isinstance(fitted, str):
        text = (
            f"With {name} the best granularity tried is {best.label('value')}, but no optimum can be fitted: {fitted}"
        )
    else:
        text = f"With {name} the loss is lowest at a granularity of {format_optimum(fitted.optimum)}"
        text += f"; the best run has G = {best.label('value')}"
    if coarse is not best:
        text += f", and coarse experts (G = {coarse.label('value')}) lose {found.judged(best, coarse)}"
    return text + "."


def _against_dense(found: Evidence, best: Design, dense: Design, name: str) -> str:
    ahead, behind = (best, dense) if best.loss < dense.loss else (dense, best)
    verb = "beats" if ahead is best else "loses to"
    return f"At {name} the best MoE {verb} its dense baseline by {found.judged(ahead, behind)}."


def _trend(slopes: list[tuple[float, float]]) -> str:
    slopes.sort()
    (small, first), (large, last) = slopes[0], slopes[-1]
    if math.isclose(small, large):
        return ""
    way = "more" if last < first else "less"
    numbers = f"{last:+.3f} against {first:+.3f} nats per doubling"
    return f"The largest backbone gains {way} from experts than the smallest ({numbers})."


def _value(fitted: Slice | str, best: Design) -> str:
    return best.label("value") if isinstance(fitted, str) else f"{fitted.optimum['value']:.2g}"


def _numbers(fitted: Slice | str, moes: list[Design], dense: Design | None) -> dict[str, Any]:
    return {
        "losses": {d.label("value"): d.loss for d in moes},
        "dense_loss": None if dense is None else dense.loss,
        "optimum": None if isinstance(fitted, str) else fitted.optimum,
        "why_no_optimum": fitted if isinstance(fitted, str) else None,
    }


def _row(name: str, axis: str, design: Design) -> list[Any]:
    r = design.record
    value = design.label("value")
    experts: list[Any] = [None, None] if r.kind == "dense" else [r.n_experts, r.d_expert]
    return [
        name,
        value,
        *experts,
        r.params_total,
        r.params_active,
        r.tokens,
        power(r.train_flops),
        design.loss,
        design.seeds,
    ]
