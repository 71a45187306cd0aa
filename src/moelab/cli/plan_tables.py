"""How `moelab plan` prints: the answer with its tables, and the runs to train next."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from moelab.planning import Plan
    from moelab.planning.next_runs import NextRuns


def print_plan(result: "Plan") -> None:
    """The answer in words, its candidates, every law's word about the first, and what to beware of."""
    from moelab.cli.output import print_line, print_table
    from moelab.quantities import format_number

    print_line(result.sentence)
    print_line()
    print_table(*result.table())
    print_line()
    rows = [
        (law, *_words(result.best.loss[law]), _choice(result.choices.get(law)))
        for law in sorted(result.best.loss, key=lambda name: name not in result.voting)
    ]
    print_table(["law (voting first)", "loss of 1.", "behind its optimum", "outside its range", "its own choice"], rows)
    print_line()
    if result.optimum:
        ends = [
            (name, *(format_number(end) for end in (interval.value, interval.low, interval.high)))
            if interval.low is not None
            else (name, format_number(interval.value), "undetermined", "by the law")
            for name, interval in result.optimum.items()
        ]
        print_table(["where the optimum lies", "chosen", "p10", "p90"], ends)
        print_line()
    for name, gain in result.relaxed.items():
        worth = gain.get("gain_cost", gain.get("gain_compute"))
        what = "of the money" if "gain_cost" in gain else "more compute"
        if worth is not None and (name != "compute" or "gain_cost" in gain):
            print_line(f"10 % more {name} is worth {worth:.1%} {what}")
    if result.best.learning_rate:
        best = result.best
        print_line(f"Step Law: learning rate {best.learning_rate:.2e}, batch {format_number(best.batch_tokens)} tokens")
    for line in result.warnings:
        print_line(f"note: {line}")


def _words(prediction: Any) -> tuple[str, str, str]:
    from moelab.planning.plan_table import range_text

    if prediction.value is None:
        return "not covered", prediction.not_covered, ""
    far = prediction.extrapolation
    outside = "range unknown" if far is None else "inside" if far < 0.005 else f"{10**far:.3g} times"
    return f"{prediction.value:.3f}{range_text(prediction)}", f"{prediction.behind_compute:.1%} of compute", outside


def _choice(design: Any) -> str:
    return "-" if design is None else f"{design.label}"


def print_next_runs(chosen: "NextRuns") -> None:
    """Runs in the order they should be trained, with the regret that each leaves."""
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
        print_line(f"note: {line}")
