"""Sections of a study's report on its experiment designs: what was matched, and what each stage chose."""

from moelab.experiments import Match
from moelab.report import Section, Table
from moelab.runs import run_columns
from moelab.studies.answer import describe_model
from moelab.studies.findings.base import power
from moelab.studies.stages import StageOutcome

_SHOWN = 12
_REPORTED = 0.01
"""Relative misses above this are reported in a sentence."""


def matching_section(matches: list[Match]) -> Section:
    """The table of exact counts against their aims."""
    worst = max((each for each in matches if each.column == "train_flops"), key=lambda m: abs(m.miss), default=None)
    text = ["Exact counts of the trained models: attention scores, router and head included; tokens are whole steps."]
    if worst is not None:
        text.append(
            f"Training FLOPs are within {abs(worst.miss):.2%} of their aim in every group"
            + ("." if worst.within else f": the worst is {worst.group}, more than one per cent off.")
        )
    text += [
        f"`{column}` is the nearest real shape's, up to {abs(miss):.1%} off its aim."
        for column, miss in _worst(matches).items()
        if column != "train_flops" and abs(miss) > _REPORTED
    ]
    rows = [
        [each.group, each.column, each.n_runs, *_values(each), _spread(each), f"{each.miss:+.2%}"] for each in matches
    ]
    columns = ["runs that should match", "in", "runs", "aim", "least", "most", "spread", "worst miss"]
    return Section("What was matched", text=text, tables=[Table(columns, rows)])


def _worst(matches: list[Match]) -> dict[str, float]:
    """Column -> the largest relative miss of any group."""
    found: dict[str, float] = {}
    for each in matches:
        found[each.column] = max(found.get(each.column, 0.0), each.miss, key=abs)
    return found


def _values(match: Match) -> list[str | None]:
    """Aim, least and most: FLOPs as powers of ten, ratios with three digits, parameters as numbers."""
    values = [match.aim, match.low, match.high]
    if match.column == "train_flops":
        return [None if value is None else power(value) for value in values]
    form = ",.0f" if match.column.startswith("params") else ".3g"
    return [None if value is None else f"{value:{form}}" for value in values]


def _spread(match: Match) -> str | None:
    """None where the runs have different aims."""
    return None if match.aim is None else f"{match.spread:.2%}"


def stage_section(outcome: StageOutcome) -> Section:
    """A stage's designs, best first."""
    rows = []
    for design in outcome.ranked[:_SHOWN]:
        columns = run_columns(design.config)
        rows.append(
            [
                describe_model(design.config.model),
                columns["params_total"],
                f"{columns['activation_rate']:.3f}",
                columns["tokens"],
                power(design.record.train_flops),
                design.loss,
                design.seeds,
            ]
        )
    names = ["design", "parameters", "activation rate", "tokens", "FLOPs", "loss", "seeds"]
    return Section(
        f"Stage: {outcome.stage.name}",
        text=[f"The best of these sets {', '.join(f'`{name}`' for name in outcome.stage.carry)} of all later runs."],
        tables=[Table(names, rows, "" if len(outcome.ranked) <= _SHOWN else f"the best {_SHOWN}")],
    )
