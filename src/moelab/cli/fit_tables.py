"""What `moelab fit` prints for people."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from moelab.fitting.comparison import Comparison
    from moelab.fitting.disagreement import Disagreement
    from moelab.fitting.fitted import FittedLaw
    from moelab.fitting.influence import Influence
    from moelab.fitting.sweeps import DesignOptimum

MOST_DESIGNS = 20
"""Designs of a sweep that are printed."""


def print_comparison(result: "Comparison") -> None:
    """The notes on the table, every fit, their scores, and the designs at which they differ most."""
    from moelab.cli.output import print_line, print_table
    from moelab.fitting.comparison import SCORES

    common = [str(finding) for finding in result.findings]
    for note in common:
        print_line(f"note: {note}")
    if result.findings:
        print_line()
    for fitted in result.fits.values():
        print_fit(fitted, common)
        print_line()
    print_table(SCORES, result.rows())
    if reach := result.reach_note():
        print_line(f"note: {reach}")
    noise = next(iter(result.fits.values())).seed_noise
    if noise is not None:
        print_line(f"seed noise: {noise['rel']:.2%} between replicates ({noise['n_groups']:.0f} groups)")
    for name, reason in result.skipped.items():
        print_line(f"left out {name}: {reason}")
    for found in result.differ_most:
        print_line()
        _print_disagreement(found)


def print_fit(fitted: "FittedLaw", common: Sequence[str] = (), of: str = "runs") -> None:
    """A fit's coefficients and notes, but those in `common`; `of` what it was fitted to."""
    from moelab.cli.output import print_line, print_table

    rows = [(name, *map(_number, _rounded(ends)), mark) for name, *ends, mark in fitted.coefficient_rows()]
    print_table([f"{fitted.law.id}, {fitted.n_runs} {of}", "value", "p10", "p90", ""], rows)
    if fitted.interval_rel is not None:
        print_line(f"80 % interval on these runs' predictions: +-{fitted.interval_rel:.2%} on average")
    print_line(
        f"objective {fitted.objective:.6g} ({fitted.objective_kind}); {fitted.starts_agreeing} of {fitted.starts} "
        f"starts agree; condition {_condition(fitted)}; {fitted.cpu_seconds:.1f} CPU-s"
    )
    for note in (*fitted.notes, *fitted.diagnosis):
        if note not in common:
            print_line(f"note: {note}")
    left = () if fitted.influence is None else fitted.influence.left
    if fitted.influence is not None and any(f"{abs(each.change_rel):.1%}" != "0.0%" for each in left):
        _print_influence(fitted.influence)


def print_optima(quantity: str, optima: Sequence["DesignOptimum"]) -> None:
    """The best value of each design of a sweep, open ends as -."""
    from moelab.cli.output import print_line, print_table
    from moelab.quantities import format_number

    if not optima:
        return
    names = list(optima[0].design)
    rows = [
        (
            *(format_number(each.design[name]) for name in names),
            *map(_number, (each.value, each.low, each.high)),
            *_at(each),
        )
        for each in optima[:MOST_DESIGNS]
    ]
    print_table([*names, f"best {quantity}", "p10", "p90", ""], rows)
    if len(optima) > MOST_DESIGNS:
        print_line(f"and {len(optima) - MOST_DESIGNS} designs more (--json has all)")


def _at(optimum: "DesignOptimum") -> tuple[str]:
    return ("" if optimum.edge is None else f"at the edge, best {optimum.edge}",)


def _print_influence(found: "Influence") -> None:
    """The runs that move the optimum most."""
    from moelab.cli.output import print_table
    from moelab.quantities import format_number

    width = "" if found.half_width_rel is None else f" +-{found.half_width_rel:.1%} by the draws"
    shown = format_number(found.value, 4) if found.flops else _fixed(found.value)
    print_table(
        ["without", "runs", found.quantity, "change"],
        [
            (label, count, format_number(value, 4) if found.flops else _fixed(value), change)
            for label, count, value, change in found.rows()
        ],
        title=f"{found.title}: {shown}{width}",
    )


def _print_disagreement(found: "Disagreement") -> None:
    """A design at which the laws differ most, with what each predicts for it."""
    from moelab.cli.output import print_table
    from moelab.quantities import format_number

    design = [(name, format_number(value, 4)) for name, value in found.design.items()]
    losses = [(name, f"{value:.4f}") for name, value in found.predictions.items()]
    row = f"row {found.row}" + (f", {found.label}" if found.label != str(found.row) else "")
    title = f"where the laws differ most {found.where}: {row}, spread {found.spread:.3f}"
    print_table(["", "value"], [*design, *losses], title=title)


def _rounded(ends: Sequence[float | None]) -> list[float | None]:
    """A value with its interval; a millionth of a millionth of the interval's ends is 0."""
    most = max((abs(end) for end in ends if end is not None), default=0.0)
    return [0.0 if end is not None and abs(end) < 1e-12 * most else end for end in ends]


def _condition(fitted: "FittedLaw") -> str:
    """The condition number; where it is infinite, what that means."""
    if fitted.condition != float("inf"):
        return f"{fitted.condition:.2g}"
    beside = ", so the prior decides them" if fitted.prior is not None else ""
    return f"infinite (these runs do not change some coefficients{beside})"


def _fixed(value: float) -> str:
    """A loss with four digits after the point; what is smaller, such as a learning rate, with four digits."""
    return f"{value:.4f}" if value >= 0.1 else f"{value:.4g}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.5g}"
