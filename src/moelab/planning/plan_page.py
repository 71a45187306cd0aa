"""A plan as one page that can be shared: the recommendation with its doubt first, then the evidence for it."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from moelab.planning.cells import rate_cells, released_cells, rule_cells, what_if_cells
from moelab.planning.costs import cost_cells, price_lines
from moelab.planning.excess_words import OVER_DESIGN, OVER_LAW, excess_note, order_note
from moelab.planning.not_taken import not_taken_sentences
from moelab.planning.phrases import LIMIT_NAMES, paragraphs, saved_by_limits
from moelab.planning.plan_table import EXCESS_COMPUTE, interval_note, layers_note
from moelab.planning.result import Plan, candidate_rows, figure
from moelab.planning.served_design import COLUMNS, assumptions, measures, served_cells
from moelab.planning.why import why
from moelab.planning.why_released import ahead_of_design, beside_released
from moelab.quantities import format_dollars, format_flops, format_number, format_outside
from moelab.report import Fact, Figure, Page, Section, Table
from moelab.version import __version__

NAMES = {
    "": "rank", "d_expert": "expert width", "layers": "layers x width", "heads": "heads/ KV heads",
    "GPUs": "replica, devices", "LR": "learning rate",
}  # fmt: skip
"""Columns of a plan's table that the page calls otherwise."""

FIRST = ("rank", "active/total", "experts", "tokens", "loss, nats", "excess", "excess cost", "$/M tokens", "lifetime $")
"""The columns that decide, which a narrow screen shows first; the others follow in their order."""

SHOWN_NATS, SHOWN_KNEES = 0.05, 4.0
"""The frontier is drawn up to so many nats above its least loss, or so many times the extra loss of the knee."""


def plan_page(plan: Plan, repeat: str, changes: bool = True) -> Page:
    """The page of a plan; without `changes` it lacks what would change the answer, which takes longest to compute.
    Where no law supports the plan, it has no figure of excess compute.
    """
    page = answer_page(plan, repeat)
    return replace(page, sections=[*page.sections, *evidence_sections(plan, changes)])


def answer_page(plan: Plan, repeat: str) -> Page:
    """The first part of a plan's page, for which the plan needs no evidence: its sentences, why, and the designs."""
    return Page(
        title="A plan by moelab",
        answer=paragraphs(plan.sentence),
        facts=_facts(plan),
        sections=_filled([Section("Why", why(plan)), _designs(plan), _served(plan)]),
        versions={"moelab": __version__},
        repeat=[repeat],
    )


def evidence_sections(plan: Plan, changes: bool = False) -> list[Section]:
    """The rest of a plan's page, with the figures."""
    supported = not plan.confidence.meaningless
    sections = [
        *([_predicted(plan)] if candidate_rows(plan) else []),
        *(([_frontier(plan)] if plan.lifetime is not None else [_pareto(plan)]) if supported else []),
        *([_slices(plan)] if supported and any(plan.slices.values()) else []),
        *([changes_section(plan)] if changes and plan.what_if else []),
        *([_released(plan)] if plan.nearest_released else []),
        _laws(plan),
        *([_rates(plan)] if plan.best.rates else []),
        *([_sensitivity(plan)] if plan.sensitivity else []),
        Section("Warnings", warnings=plan.warnings),
    ]
    return _filled(sections)


def _filled(sections: list[Section]) -> list[Section]:
    return [part for part in sections if part.text or part.figures or part.tables or part.warnings]


def _facts(plan: Plan) -> list[Fact]:
    best = plan.best
    facts = [
        Fact("Design", "MoE" if best.is_moe else "dense", best.label),
        Fact("Tokens", format_number(best.tokens), f"{best.tokens / best.params_active:.0f} per active parameter"),
        Fact("Training", format_flops(best.train_flops, 3), "FLOPs, attention as the full square"),
    ]
    if best.cost is not None and "lifetime" in best.cost:
        parts = [*_ends(best.cost, "lifetime"), f"{format_dollars(best.cost['train'])} of it training"]
        facts.append(Fact("Lifetime cost", format_dollars(best.cost["lifetime"]), "; ".join(parts)))
    elif best.training and best.training["dollars"] is not None:
        note = "; ".join(_ends(best.training, "dollars")) or "at the given MFU"
        facts.append(Fact("Training cost", format_dollars(best.training["dollars"]), note))
    return facts + _latency(plan)


def _ends(values: Mapping[str, Any], name: str) -> list[str]:
    """The 80 % interval of a cost in words; none where it is not known."""
    low, high = values.get(f"{name}_low"), values.get(f"{name}_high")
    if low is None or high is None:
        return []
    return [f"80 % interval {format_dollars(low)} to {format_dollars(high)}"]


def _latency(plan: Plan) -> list[Fact]:
    """The time per output token with its interval, and the doubt whether its limit is met; none without serving."""
    for row in measures(plan.best, plan.budget.serving)[:1]:
        parts = [f"80 % interval {row.interval}"] if row.low is not None else []
        parts += [f"limit {row.text(row.limit)}" for _ in range(row.limit is not None)]
        parts += [f"met with probability {row.probability}"] if row.met is not None else []
        return [Fact("Time per output token", row.text(row.value), "; ".join(parts))]
    return []


def _designs(plan: Plan) -> Section:
    columns, rows = plan.table()
    rule = "" if plan.confidence.meaningless else f" ({plan.near_equal_rule})"
    near = f"{plan.near_equal:,} designs are near-equal{rule}." if plan.near_equal > 1 else ""
    designs = plan.candidates
    parts = (layers_note(designs), excess_note(plan), order_note(plan), near, interval_note(designs))
    columns = [NAMES.get(name, name) for name in columns]
    order = sorted(range(len(columns)), key=lambda at: FIRST.index(columns[at]) if columns[at] in FIRST else len(FIRST))
    order = [at for at in order if any(row[at] != "-" for row in rows)]
    cells = [[_whole(row[at]) for at in order] for row in rows]
    return Section("Designs", tables=[Table([columns[at] for at in order], cells, " ".join(filter(None, parts)))])


def _served(plan: Plan) -> Section:
    """Latency, throughput and costs of design 1 with their doubt, and what they assume."""
    rows, prices = served_cells(plan.best, plan.budget.serving), price_lines(plan.best)
    if rows:
        rows, prices = [*rows, *cost_cells(plan.best)], prices[1:]
    text = [*assumptions(plan.budget, plan.best), *prices]
    return Section("Latency and cost of design 1", text, tables=[Table(COLUMNS, rows)] if rows else [])


def _whole(cell: str) -> str:
    """A cell that does not break between `top` and its number."""
    return cell.replace(" top-", "\u00a0top\u2011")


def _predicted(plan: Plan) -> Section:
    several = len(plan.ensemble) > 1 and plan.best.mean_loss is None
    caption = "Losses of different published laws are not comparable." if several else ""
    return Section("Predicted loss", figures=[Figure(figure(plan, "candidates"), caption)])


def _frontier(plan: Plan) -> Section:
    from moelab.report import figures

    assert plan.lifetime is not None
    rows = plan.lifetime["frontier"]
    most = max([SHOWN_NATS, *(SHOWN_KNEES * row["extra_nats"] for row in rows if row["knee"])])
    here = plan.lifetime["recommended"]
    rows = rows if any(row["recommended"] for row in rows) else [*rows, here]
    most = max(most, here["extra_nats"])
    chart = figures.lifetime_frontier([row for row in rows if row["extra_nats"] <= most])
    caption = (
        f"No other design has a lower loss at a lower cost; “Why” gives what chose design 1 among them. "
        f"Designs more than {most:.2g} nats above the least loss are not drawn."
    )
    return Section("Loss against lifetime cost", figures=[Figure(chart, caption)])


def _pareto(plan: Plan) -> Section:
    caption = "Designs that no other beats at once."
    if plan.loss_name == EXCESS_COMPUTE:
        caption = f"{caption} {excess_note(plan)}"
    return Section("Loss against size", not_taken_sentences(plan), figures=[Figure(figure(plan, "pareto"), caption)])


def _slices(plan: Plan) -> Section:
    caption = "The least loss that each law predicts within the limits at this value; all else is chosen anew."
    return Section("Loss along each axis", figures=[Figure(figure(plan, "slices"), caption)])


def changes_section(plan: Plan) -> Section:
    """The design that is recommended after each change of a limit or a law."""
    rows = [what_if_cells(row) for row in plan.what_if]
    columns = ["what if", "active / total", "experts", "tokens", "extra nats", "lifetime cost"]
    shown = 6 if any(row[5] for row in rows) else 5
    return Section("What changes the answer", tables=[Table(columns[:shown], [row[:shown] for row in rows])])


def _released(plan: Plan) -> Section:
    columns = ["model", "active / total", "trained on", "tokens here", "excess compute", "extra nats", "$/M tokens"]
    order = [0, 1, 4, 5, *([6] if plan.best.serving is not None else []), 2, 3]  # what decides comes first
    shares = not plan.confidence.meaningless
    rows = [[released_cells(row, shares)[at] for at in order] for row in plan.nearest_released]
    caption = f"As this budget would train them. {OVER_DESIGN}" if shares else "As this budget would train them."
    return Section(
        "Nearest released models",
        [*ahead_of_design(plan), *beside_released(plan)],
        tables=[Table([columns[at] for at in order], rows, caption)],
    )


def _laws(plan: Plan) -> Section:
    """Every law that applies to design 1, the ensemble first; those that do not are one sentence."""
    best = plan.best
    order = sorted(best.loss, key=lambda law: law not in plan.ensemble)
    applies = [law for law in order if best.loss[law].value is not None]
    rows = [[law, *_law_row(best.loss[law], not plan.confidence.meaningless), _own(plan, law)] for law in applies]
    others = [law for law in order if law not in applies]
    text = [f"Not applicable to design 1: {', '.join(others)}."] if others else []
    columns = ["law (ensemble first)", "loss of design 1", "excess over its optimum", "outside its runs", "its optimum"]
    caption = OVER_LAW if rows and not plan.confidence.meaningless else ""
    return Section("Law by law", text, tables=[Table(columns, rows, caption)])


def _law_row(prediction: Any, shares: bool) -> list[str]:
    behind = prediction.behind_compute
    return [
        f"{prediction.value:.3f}",
        "–" if behind is None or not shares else f"{behind:.1%}",
        format_outside(prediction.extrapolation),
    ]


def _own(plan: Plan, law: str) -> str | None:
    return plan.choices[law].label if law in plan.choices else None


def _rates(plan: Plan) -> Section:
    best, released = plan.best, plan.released_rates
    rows = [*(rule_cells(rate, best.params_active, released) for rate in best.rates), *map(rate_cells, released)]
    columns = ["rule (preferred first)", "learning rate", "batch, tokens", "outside its runs, or source"]
    return Section("Learning rate and batch", tables=[Table(columns, [list(row) for row in rows])])


def _sensitivity(plan: Plan) -> Section:
    """What 10 % more of each limit saves."""
    rows = [
        [LIMIT_NAMES[name], saved] for name, saved in saved_by_limits(plan.sensitivity, not plan.confidence.meaningless)
    ]
    return Section("Limits", tables=[Table(["10 % more of", "saves"], rows)] if rows else [])
