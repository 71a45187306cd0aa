"""The tables of `moelab plan`: the plan, and the runs to train next."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from moelab.planning import Plan
    from moelab.planning.next_runs import NextRuns


def print_plan(result: "Plan") -> None:
    """The plan in words, its candidates, every law's prediction for the first, sensitivities and warnings."""
    from moelab.cli.output import print_line, print_table
    from moelab.planning.excess_words import excess_note, order_note
    from moelab.planning.not_taken import not_taken_sentences
    from moelab.planning.phrases import LIMIT_NAMES, saved_by_limits
    from moelab.planning.plan_table import interval_note, layers_note
    from moelab.planning.why import why

    _print_answer(result.sentence)
    for line in [*why(result), *not_taken_sentences(result)]:
        print_line(f"- {line}")
    print_line()
    print_table(*result.table())
    designs = result.candidates
    for line in filter(None, (layers_note(designs), excess_note(result), order_note(result), interval_note(designs))):
        print_line(line)
    print_line()
    _print_served(result)
    _print_what_if(result)
    print_line()
    _print_released(result)
    print_line()
    _print_laws(result)
    print_line()
    if result.optimum:
        _print_optimum(result)
        print_line()
    for name, saved in saved_by_limits(result.sensitivity, not result.confidence.meaningless):
        print_line(f"10 % more of {LIMIT_NAMES[name]} saves {saved}")
    _print_rates(result)
    for line in result.warnings:
        print_line(f"Warning: {line}")


def _print_answer(sentence: str) -> None:
    """Any doubt, the recommendation, and how it was found: a paragraph each, the recommendation in bold."""
    from moelab.cli.output import print_line
    from moelab.planning.phrases import paragraphs

    for paragraph in paragraphs(sentence):
        print_line(paragraph, bold=paragraph.startswith("Train "))
        print_line()


def _print_served(result: "Plan") -> None:
    """Latency, throughput and costs of design 1 with their doubt, and what they assume."""
    from moelab.cli.output import print_line, print_table
    from moelab.planning.costs import price_lines
    from moelab.planning.served_design import COLUMNS, assumptions, served_cells

    rows = served_cells(result.best, result.budget.serving)
    lines = [*assumptions(result.budget, result.best), *price_lines(result.best)]
    if rows:
        print_table(["design 1", *COLUMNS[1:]], rows)
    for line in lines:
        print_line(line)
    if rows or lines:
        print_line()


def _print_what_if(result: "Plan") -> None:
    """The recommendation under changed limits, by each law alone, and at the floor's p10 and p90."""
    from moelab.cli.output import print_table
    from moelab.planning.cells import what_if_cells

    priced = any("cost" in row for row in result.what_if)
    columns = ["what if", "active / total", "experts", "tokens", "extra nats", "lifetime cost"]
    rows = [what_if_cells(row) for row in result.what_if]
    shown = len(columns) if priced or any("why_not" in row for row in result.what_if) else len(columns) - 1
    print_table(columns[:shown], [row[:shown] for row in rows])


def _print_released(result: "Plan") -> None:
    """The nearest released models, as this budget would train them."""
    from moelab.cli.output import print_line, print_table
    from moelab.planning.cells import released_cells
    from moelab.planning.why_released import ahead_of_design, beside_released

    columns = [
        "nearest released",
        "active / total",
        "trained on",
        "tokens here",
        "excess compute",
        "extra nats",
        "$/M tokens",
    ]
    priced = result.best.serving is not None
    rows = [released_cells(row, not result.confidence.meaningless) for row in result.nearest_released]
    shown = len(columns) if priced else len(columns) - 1
    print_table(columns[:shown], [row[:shown] for row in rows])
    for line in ahead_of_design(result):
        print_line(line)
    for line in beside_released(result):
        print_line(line)


def _print_laws(result: "Plan") -> None:
    """Every law's prediction for the recommended design, and its own optimum; laws of the ensemble first."""
    from moelab.cli.output import print_line, print_table

    laws = sorted(result.best.loss, key=lambda name: name not in result.ensemble)
    applies = [law for law in laws if result.best.loss[law].value is not None or law in result.ensemble]
    shares = not result.confidence.meaningless
    rows = [(law, *_law_cells(result.best.loss[law], shares), _own_optimum(result.choices.get(law))) for law in applies]
    columns = ("loss of design 1, nats", "excess over the law's optimum", "outside fitted range", "the law's optimum")
    print_table(["law (ensemble first)", *columns], rows)
    others = [law for law in laws if law not in applies]
    if others:
        print_line(f"Not applicable to design 1: {', '.join(others)} (--json gives each reason).")


def _print_rates(result: "Plan") -> None:
    """Learning rate and batch by every rule that applies, the preferred one first, and of released models."""
    from moelab.cli.output import print_table
    from moelab.planning.cells import rate_cells, rule_cells

    best, released = result.best, result.released_rates
    rows = [rule_cells(rate, best.params_active, released) for rate in best.rates]
    rows += [rate_cells(row) for row in result.released_rates]
    print_table(["rule (preferred first)", "learning rate", "batch, tokens", "outside its runs, or source"], rows)


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


def _law_cells(prediction: Any, shares: bool) -> tuple[str, str, str]:
    """A law's loss of a design, its excess compute over the law's own optimum, and the distance from its range."""
    from moelab.planning.plan_table import range_text
    from moelab.quantities import format_outside

    if prediction.value is None:
        return "not covered", prediction.not_covered, ""
    outside = format_outside(prediction.extrapolation)
    behind = f"{prediction.behind_compute:.1%} of compute" if shares else "-"
    return f"{prediction.value:.3f}{range_text(prediction)}", behind, outside


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
