"""The tables of `moelab plan`: the plan, and the runs to train next."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from moelab.planning import Plan
    from moelab.planning.next_runs import NextRuns


def print_plan(result: "Plan") -> None:
    """The plan in words, its candidates, every law's prediction for the first, sensitivities and warnings."""
    from moelab.cli.output import print_line
    from moelab.quantities import format_number

    print_line(result.sentence)
    print_line()
    _print_candidates(result)
    print_line()
    _print_laws(result)
    print_line()
    if result.optimum:
        _print_optimum(result)
        print_line()
    for name, gain in result.sensitivity.items():
        saving = gain.get("gain_cost", gain.get("gain_compute"))
        what = "of the cost" if "gain_cost" in gain else "more compute"
        if saving is not None and (name != "compute" or "gain_cost" in gain):
            print_line(f"10 % more {name} is worth {saving:.1%} {what}")
    best = result.best
    if best.learning_rate:
        print_line(f"Step Law: learning rate {best.learning_rate:.2e}, batch {format_number(best.batch_tokens)} tokens")
    for line in result.warnings:
        print_line(f"Warning: {line}")


def _print_candidates(result: "Plan") -> None:
    """The ranked designs, and the best dense one where none of them is dense."""
    from moelab.cli.output import print_table

    shown = [(f"{rank}", design) for rank, design in enumerate(result.candidates, 1)]
    if result.best_dense is not None and all(design.is_moe for design in result.candidates):
        shown.append(("dense", result.best_dense))
    columns = _columns(result)
    print_table(["", *columns], [[rank, *(cell(design) for cell in columns.values())] for rank, design in shown])


def _print_laws(result: "Plan") -> None:
    """Every law's prediction for the recommended design, and its own optimum; laws of the ensemble first."""
    from moelab.cli.output import print_table

    rows = [
        (law, *_law_cells(result.best.loss[law]), _own_optimum(result.choices.get(law)))
        for law in sorted(result.best.loss, key=lambda name: name not in result.ensemble)
    ]
    columns = ("loss of design 1", "excess over own optimum", "outside fitted range", "own optimum")
    print_table(["law (ensemble first)", *columns], rows)


def _print_optimum(result: "Plan") -> None:
    """The location of the optimum by property, with its interval."""
    from moelab.cli.output import print_table
    from moelab.quantities import format_number

    rows = [
        (name, *(format_number(end) for end in (interval.value, interval.low, interval.high)))
        if interval.low is not None
        else (name, format_number(interval.value), "undetermined", "by these laws")
        for name, interval in result.optimum.items()
    ]
    print_table(["location of the optimum", "design 1", "p10", "p90"], rows)


def _columns(result: "Plan") -> dict[str, Any]:
    """Column title -> a function from a candidate to its cell."""
    from moelab.quantities import format_bytes, format_number

    columns: dict[str, Any] = {
        "active / total": lambda c: f"{format_number(c.params_active)} / {format_number(c.params_total)}",
        "experts": lambda c: c.experts,
        "layers x width": lambda c: f"{c.config.n_layers} x {c.config.d_model}",
        "tokens": lambda c: format_number(c.tokens) + (f" ({c.epochs:.2g} ep)" if c.epochs > 1.001 else ""),
    }
    if result.best.mean_loss is not None:
        columns["loss"] = lambda c: f"{c.mean_loss.value:.3f}{_range(c.mean_loss)}" if c.mean_loss else "-"
    excess = "excess compute" if result.budget.objective == "loss" else "excess cost"
    columns[excess] = lambda c: f"{c.regret_compute.value:.1%}{_range(c.regret_compute, 100)}"
    columns["memory"] = lambda c: format_bytes(c.memory_bytes)
    if result.best.serving is not None:
        columns["$/M tokens"] = lambda c: f"{c.serving['cost_per_million_tokens']:.3g}" if c.serving else "-"
    if result.best.cost is not None and result.budget.train_hardware is not None:
        columns["$ training"] = lambda c: format_number(c.cost["train"])
    if result.best.cost is not None and "lifetime" in result.best.cost:
        columns["$ lifetime"] = lambda c: format_number(c.cost["lifetime"])
    return columns


def _law_cells(prediction: Any) -> tuple[str, str, str]:
    """A law's loss of a design, its excess compute over the law's own optimum, and the distance from its range."""
    if prediction.value is None:
        return "not covered", prediction.not_covered, ""
    far = prediction.extrapolation
    outside = "range unknown" if far is None else "inside" if far < 0.005 else f"{10**far:.3g} times"
    return f"{prediction.value:.3f}{_range(prediction)}", f"{prediction.behind_compute:.1%} of compute", outside


def _own_optimum(design: Any) -> str:
    return "-" if design is None else str(design.label)


def _range(interval: Any, scale: int = 1) -> str:
    if interval.low is None or interval.high is None:
        return ""
    if scale == 100:
        return f" [{interval.low:.0%}, {interval.high:.0%}]"
    return f" [{interval.low:.3f}, {interval.high:.3f}]"


def print_next_runs(chosen: "NextRuns") -> None:
    """Runs in the order of training, with the expected regret after each."""
    from moelab.cli.output import print_line, print_table
    from moelab.quantities import format_number

    print_line(chosen.sentence)
    print_table(
        ["next run", "tokens", "FLOPs", "expected regret after", "saved per FLOP"],
        [
            (
                run.candidate.label,
                format_number(run.candidate.tokens),
                format_number(run.candidate.train_flops),
                f"{run.regret_after:.4f}",
                f"{run.saved_per_flop:.2e}",
            )
            for run in chosen.runs
        ],
    )
    for line in chosen.warnings:
        print_line(f"Warning: {line}")
