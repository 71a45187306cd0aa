"""The law catalogue as a page of documentation: `moelab laws --markdown > docs/laws.md`. A test keeps it current."""

from moelab.laws.catalogue import all_laws, all_rules
from moelab.laws.law import Law
from moelab.laws.rules import Rule
from moelab.quantities import format_number

_HEAD = """# The law catalogue

Written by `moelab laws --markdown > docs/laws.md`; edit the laws in `src/moelab/laws/`, not this page.

A law predicts the loss in nats per token (one predicts compute leverage) from variables that are columns of a table of
runs. Every paper counts in its own way; `Law.variables_of(model, tokens)` converts an architecture into the law's
variables and reports where the law does not apply. Marks: *read* in the paper or its authors' code, *second-hand* from
another source, *recomputed* from public data. An unknown range is unknown: nothing is guessed.

`NAME+reuse` is any law in N and D with repeated tokens counted as Muennighoff's effective tokens (arXiv 2305.16264);
for MoE that composition is our assumption.
"""


def catalogue_markdown() -> str:
    """Every law and rule, with form, coefficients, conventions, ranges and citation."""
    laws, rules = all_laws().values(), all_rules().values()
    table = ["| law | predicts | dense | MoE | coefficients | variables |", "|---|---|---|---|---|---|"]
    table += [
        f"| [{law.id}](#{law.id}) | {law.kind} | {_mark(law.covers_dense)} | {_mark(law.covers_moe)} "
        f"| {law.mark or 'none'} | {', '.join(f'`{name}`' for name in law.variables)} |"
        for law in laws
    ]
    parts = [_HEAD, "\n".join(table) + "\n", *(_law(law) for law in laws)]
    parts += ["## Rules for learning rate, batch and the split of compute\n", *(_rule(rule) for rule in rules)]
    return "\n".join(parts)


def _law(law: Law) -> str:
    lines = [f"## {law.id}", "", f"{law.title}. {law.citation}.", "", f"    {law.form}", ""]
    if law.note:
        lines += [f"Note: {law.note}.", ""]
    lines += [f"Compute: {law.flops}.", "", "| variable | fitted range | meaning |", "|---|---|---|"]
    ranges = {**dict.fromkeys(law.variables), **law.ranges}
    lines += [f"| `{name}` | {_range(limits)} | {law.meaning.get(name, '')} |" for name, limits in ranges.items()]
    lines.append("")
    if law.published is None:
        lines.append(f"Coefficients {', '.join(f'`{name}`' for name in law.coefficients)}: none; {law.unpublished}.")
    else:
        values = ", ".join(f"`{name}` {law.published[name]:.6g}" for name in law.coefficients)
        lines.append(f"Coefficients ({law.mark}): {values}.")
    return "\n".join(lines) + "\n"


def _rule(rule: Rule) -> str:
    needs = ", ".join(f"`{name}` ({_range(rule.ranges.get(name))})" for name in rule.needs)
    head = f"### {rule.id}\n\n{rule.title}. {rule.citation}. Coefficients {rule.mark}."
    return f"{head}\n\n    {rule.form}\n\n{rule.meaning}. From {needs}.\n"


def _mark(holds: bool) -> str:
    return "yes" if holds else "no"


def _range(limits: tuple[float, float] | None) -> str:
    return f"{format_number(limits[0])} to {format_number(limits[1])}" if limits else "unknown"
