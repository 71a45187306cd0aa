"""The tables of `moelab plan`: the plan, and the runs to train next."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from moelab.planning import Plan
    from moelab.planning.next_runs import NextRuns


def print_plan(result: "Plan") -> None:
    """The plan in words, its candidates, every law's prediction for the first, sensitivities and warnings."""
    from moelab.cli.output import print_line, print_table
    from moelab.quantities import format_number

    print_line(result.sentence)
    print_line()
    print_table(*result.table())
    print_line()
    _print_laws(result)
    print_line()
    if result.optimum:
        _print_optimum(result)
        print_line()
    for name, gain in result.sensitivity.items():
        saving = gain.get("gain_cost", gain.get("gain_compute"))
        if saving is not None and (name != "compute" or "gain_cost" in gain):
            what = f"{saving:.1%} of the cost" if "gain_cost" in gain else f"as much loss as {saving:.1%} compute"
            print_line(f"A 10 % higher limit on {name} saves {what}")
    best = result.best
    if best.learning_rate:
        print_line(f"Step Law: learning rate {best.learning_rate:.2e}, batch {format_number(best.batch_tokens)} tokens")
    for line in result.warnings:
        print_line(f"Warning: {line}")


def _print_laws(result: "Plan") -> None:
    """Every law's prediction for the recommended design, and its own optimum; laws of the ensemble first."""
    from moelab.cli.output import print_table

    rows = [
        (law, *_law_cells(result.best.loss[law]), _own_optimum(result.choices.get(law)))
        for law in sorted(result.best.loss, key=lambda name: name not in result.ensemble)
    ]
    columns = ("loss of design 1, nats", "excess over the law's optimum", "outside fitted range", "the law's optimum")
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


def _law_cells(prediction: Any) -> tuple[str, str, str]:
    """A law's loss of a design, its excess compute over the law's own optimum, and the distance from its range."""
    from moelab.planning.plan_table import range_text

    if prediction.value is None:
        return "not covered", prediction.not_covered, ""
    far = prediction.extrapolation
    outside = "range unknown" if far is None else "inside" if far < 0.005 else f"{10**far:.3g} times"
    return f"{prediction.value:.3f}{range_text(prediction)}", f"{prediction.behind_compute:.1%} of compute", outside


def _own_optimum(design: Any) -> str:
    return "-" if design is None else str(design.label)


def print_next_runs(chosen: "NextRuns") -> None:
    """Runs in the order of training, with the expected regret after each."""
    from moelab.cli.output import print_line, print_table
    from moelab.quantities import format_number

    print_line(chosen.sentence)
    print_table(
        ["next run", "tokens", "FLOPs (full square)", "expected regret after, nats", "nats saved per FLOP"],
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
