"""`moelab laws NAME --optimum`: a law's own compute-optimal point, with intervals where it is one's own fit."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from moelab.fitting.fitted_optimum import FittedOptimum
    from moelab.laws import Law
    from moelab.laws.optimum import Optimum

CONTRACT = ("params_total", "params_active", "tokens", "granularity", "n_experts", "train_flops")


def show_optimum(
    law: "Law", flops: str | None, settings: list[str], max_memory: str | None, fit_file: str | None, json: bool
) -> None:
    """Solve and print. Raises InputError for a missing compute and for a fit file without this law."""
    from moelab.cli.assignments import parse_assignments
    from moelab.cli.output import print_json
    from moelab.errors import InputError
    from moelab.laws.optimum import optimum
    from moelab.quantities import parse_bytes, parse_number

    if flops is None:
        raise InputError("--flops: --optimum needs a compute such as 1e21")
    pinned = parse_assignments(settings, "--set")
    memory = None if max_memory is None else parse_bytes(max_memory, "--max-memory")
    budget = parse_number(flops, "--flops")
    found = None if fit_file is None else fit_of(fit_file, law.id).optimum(budget, pinned, memory)
    best = optimum(law, budget, pinned, None, memory) if found is None else found.point
    if json:
        print_json(_to_json(law, budget, best, found))
    else:
        _print_optimum(law, budget, best, found)


def fit_of(path: str, law_id: str) -> Any:
    """The fit of a law in a file. Raises InputError where there is none."""
    from moelab.errors import InputError
    from moelab.fitting import load_fits

    fits = load_fits(path)
    if law_id not in fits:
        raise InputError(f"--law: {path} holds no fit of {law_id}; it has {', '.join(fits)}")
    return fits[law_id]


def _to_json(law: "Law", budget: float, best: "Optimum", found: "FittedOptimum | None") -> dict[str, Any]:
    contract: dict[str, float | None] = {name: best.values.get(name) for name in CONTRACT}
    others = {name: value for name, value in best.values.items() if name not in CONTRACT}
    return {
        "law": law.id,
        **contract,
        "train_flops": budget,
        "loss": best.loss if law.kind == "loss" else None,
        **({} if law.kind == "loss" else {law.kind: best.loss}),
        **others,
        "decided_by": list(best.decided_by),
        "extrapolation": best.extrapolation,
        "intervals": None if found is None else found.intervals,
        "exponents": None if found is None else found.exponents,
        "notes": _notes(law, best, found),
    }


def _notes(law: "Law", best: "Optimum", found: "FittedOptimum | None") -> list[str]:
    """The notes of a fit's optimum, and one where the optimum is a factor of a thousand out of range."""
    from moelab.fitting.implausible import meaningless

    return [*(() if found is None else found.notes), *meaningless({}, {}, {law.id: best.extrapolation})]


def _print_optimum(law: "Law", flops: float, best: "Optimum", found: "FittedOptimum | None") -> None:
    from moelab.cli.output import print_line, print_table
    from moelab.quantities import format_flops, format_outside

    head = f"{law.id} at {format_flops(flops, 4)} FLOPs"
    rows = [(name, _shown(name, value)) for name, value in best.values.items() if name != "train_flops"]
    if found is None:
        print_table([head, ""], [*rows, (law.kind, f"{best.loss:.4f}")])
    else:
        ends = {name: found.intervals[name] for name, _ in rows} | {law.kind: found.intervals["loss"]}
        table = [(name, *(_shown(name, end, law.kind) for end in each.values())) for name, each in ends.items()]
        powers = [
            (f"{name} ~ C^", *(_shown(law.kind, end, law.kind) for end in each.values()))
            for name, each in found.exponents.items()
        ]
        print_table([head, "value", "p10", "p90"], [*table, *powers])
    print_line(f"compute in the law's own convention: {law.flops}")
    for bound in best.decided_by:
        print_line(f"limited by: {bound}")
    if best.extrapolation is None:
        print_line("the fitted range is not known")
    elif best.extrapolation > 0:
        print_line(f"extrapolates: {format_outside(best.extrapolation)} outside the fitted range")
    for note in _notes(law, best, found):
        print_line(f"note: {note}")


def _shown(name: str, value: float | None, kind: str = "") -> str:
    from moelab.quantities import format_bytes, format_number

    if value is None:
        return "-"
    if name == kind:
        return f"{value:.4f}"
    return format_bytes(value) if name == "memory_bytes" else format_number(value, 4)
