"""What `moelab isoflop` prints for people."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from moelab.fitting.budgets import Budgets
    from moelab.fitting.full_fit import FullFit
    from moelab.fitting.slice import Slice


def curves_of(result: "Slice") -> list[dict[str, Any]]:
    """Where each curve that was tried has its lowest point, on the axis itself; null beyond the runs."""
    return [
        {"curve": name, "window": window, "n_points": count, "rejected": rejected, **ends}
        for name, window, count, rejected, ends in result.curve_rows()
    ]


def print_budgets(found: "Budgets", flops: list[float], whole: "FullFit | None") -> None:
    from moelab.cli.output import print_line, print_table
    from moelab.fitting.budgets import shown_key
    from moelab.quantities import format_flops

    print_table(
        [found.heading, "runs", f"best {found.x}", "p10", "p90", "tokens there"],
        [
            (shown_key(key), str(count), *cells(best), "-" if tokens is None else cells(tokens)[0])
            for key, count, best, tokens, _ in found.rows()
        ],
    )
    for note in found.slice_notes():
        print_line(f"note: {note}")
    for key, reason in found.failed.items():
        print_line(f"no slice at {found.label(key)}: {reason}")
    if not found.exponents:
        print_line(f"no power law of {found.x} in the compute: it needs bounded optima at two or more computes")
        return
    rows = [(f"{name} ~ C^", *cells(ends)) for name, ends in found.exponents.items()]
    for budget in flops:
        there = format_flops(budget)
        rows += [(f"best {name} at {there} FLOPs", *cells(ends)) for name, ends in found.at(budget).items()]
    print_table(["power laws in the compute", "value", "p10", "p90"], rows)
    if found.parabola is not None:
        print_line(f"parabolas alone: {found.x} ~ C^{found.parabola:.4g}")
    for note in found.notes(flops):
        print_line(f"note: {note}")
    if whole is not None:
        print_line(f"a fit of {whole.law} to all runs: {found.x} ~ C^{whole.exponent:.4g}")
        for budget, off in found.bias(whole, flops).items():
            print_line(f"at {format_flops(budget)} FLOPs the parabolas lie {off:+.1%} from that fit in {found.x}")


def cells(value: dict[str, float | None]) -> tuple[str, ...]:
    """A value with its ends as text."""
    from moelab.quantities import format_number

    return tuple("-" if number is None else format_number(number, 4) for number in value.values())
