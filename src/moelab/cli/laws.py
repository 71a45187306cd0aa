"""`moelab laws`: the catalogue of scaling laws, one law in full, or its own compute-optimal point."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from moelab.cli.law_files import LawFiles

if TYPE_CHECKING:
    from moelab.laws import Law, Rule


def command(
    name: Annotated[str | None, typer.Argument(help="A law's or rule's id; none lists all of them.")] = None,
    optimum: Annotated[bool, typer.Option("--optimum", help="Solve the law's own compute-optimal point.")] = False,
    flops: Annotated[
        str | None, typer.Option(help="Training compute in the law's own convention, such as 1e21.")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Pin a choice of the law, as NAME=VALUE; repeatable.")
    ] = None,
    max_memory: Annotated[
        str | None, typer.Option(help="Bound on inference memory, such as 80GB, where the law has one.")
    ] = None,
    fit_file: Annotated[
        str | None, typer.Option("--law", "--fit", help="Take the coefficients from this fit file.")
    ] = None,
    law_file: LawFiles = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the whole catalogue as docs/laws.md.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON only.")] = False,
) -> None:
    """List the scaling laws, show one, or solve for its optimum.

    The compute-optimal point is solved in the law's own convention.

    Example: moelab laws krajewski2024 --optimum --flops 1.93e20 --set expansion=64
    """
    from moelab.cli.output import print_json
    from moelab.errors import InputError
    from moelab.laws import all_laws, all_rules, get_law

    if markdown:
        if json or name is not None or optimum or flops or settings or max_memory or fit_file:
            raise InputError("laws: --markdown prints the whole catalogue; it goes with no name and no other option")
        from moelab.laws.document import catalogue_markdown

        print(catalogue_markdown(), end="")
    elif name is None:
        if optimum or flops or settings or max_memory or fit_file:
            raise InputError("laws: --optimum and the options that go with it need a law's name")
        laws, rules = list(all_laws().values()), list(all_rules().values())
        if json:
            print_json({"laws": [_law_json(law) for law in laws], "rules": [_rule_json(rule) for rule in rules]})
        else:
            _print_catalogue(laws, rules)
    elif name in all_rules() and name not in all_laws():
        _show_rule(all_rules()[name], flops, optimum, json)
    elif optimum:
        from moelab.cli.laws_optimum import fit_of, show_optimum

        own = fit_file is not None and name not in all_laws()  # the file may hold its formula
        show_optimum(
            fit_of(fit_file or "", name).law if own else get_law(name),
            flops,
            settings or [],
            max_memory,
            fit_file,
            json,
        )
    else:
        if flops or settings or max_memory or fit_file:
            raise InputError("laws: --flops, --set, --max-memory and --law go with --optimum")
        law = get_law(name)
        if json:
            print_json(_law_json(law))
        else:
            _print_law(law)


def _law_json(law: "Law") -> dict[str, Any]:
    return {
        "law": law.id,
        "title": law.title,
        "citation": law.citation,
        "kind": law.kind,
        "form": law.form,
        "variables": {name: law.meaning.get(name, "") for name in law.variables},
        "coefficients": {name: law.published[name] if law.published else None for name in law.coefficients},
        "mark": law.mark,
        "unpublished": law.unpublished or None,
        "note": law.note or None,
        "flops": law.flops,
        "ranges": {name: list(limits) if limits else None for name, limits in law.ranges.items()},
        "covers_dense": law.covers_dense,
        "covers_moe": law.covers_moe,
    }


def _rule_json(rule: "Rule") -> dict[str, Any]:
    return {
        "rule": rule.id,
        "title": rule.title,
        "citation": rule.citation,
        "needs": list(rule.needs),
        "form": rule.form,
        "meaning": rule.meaning,
        "mark": rule.mark,
        "ranges": {name: list(limits) if limits else None for name, limits in rule.ranges.items()},
    }


def _covers(law: "Law") -> str:
    return " + ".join(kind for kind, covered in (("dense", law.covers_dense), ("MoE", law.covers_moe)) if covered)


def _print_catalogue(laws: "list[Law]", rules: "list[Rule]") -> None:
    from moelab.cli.output import print_line, print_table

    print_table(
        ["law", "title", "predicts", "covers", "coefficients", "variables"],
        [
            (law.id, law.title, law.kind, _covers(law), law.mark or "none published", ", ".join(law.variables))
            for law in laws
        ],
    )
    print_line()
    print_table(
        ["rule", "title", "coefficients", "from"],
        [(rule.id, rule.title, rule.mark, ", ".join(rule.needs)) for rule in rules],
    )
    print_line()
    print_line("moelab laws NAME shows one in full; NAME+reuse is a law in N and D with repeated data.")


def _print_law(law: "Law") -> None:
    from moelab.cli.output import print_line, print_table

    print_line(f"{law.id}: {law.title} ({law.citation})")
    print_line(f"  {law.form}")
    print_line(f"  predicts {law.kind}; describes {_covers(law)} models; compute: {law.flops}")
    if law.note:
        print_line(f"  note: {law.note}")
    print_line()
    ranges = {**dict.fromkeys(law.variables), **law.ranges}
    print_table(
        ["variable", "fitted range", "meaning"],
        [(name, _range(limits), law.meaning.get(name, "")) for name, limits in ranges.items()],
    )
    print_line()
    if law.published is None:
        print_line(f"coefficients: {', '.join(law.coefficients)}; none published: {law.unpublished}. Fit them.")
        return
    print_table(
        [f"coefficient ({law.mark})", "value"],
        [(name, f"{law.published[name]:.6g}") for name in law.coefficients],
    )


def _range(limits: tuple[float, float] | None) -> str:
    from moelab.quantities import format_number

    return f"{format_number(limits[0])} to {format_number(limits[1])}" if limits else "unknown"


def _show_rule(rule: "Rule", flops: str | None, optimum: bool, json: bool) -> None:
    from moelab.cli.output import print_json, print_line, print_table
    from moelab.errors import InputError
    from moelab.quantities import MOST_FLOPS, check_at_most, format_number, parse_number

    if optimum and (flops is None or rule.needs != ("train_flops",)):
        raise InputError(
            f"laws: {rule.id} is a rule in {', '.join(rule.needs)}; only a rule in train_flops has an optimum"
        )
    values: dict[str, float] = {}
    if flops is not None and optimum:
        compute = parse_number(flops, "--flops")
        check_at_most(compute, MOST_FLOPS, "--flops")
        values = {name: float(value) for name, value in rule.apply(train_flops=compute).items()}
    if json:
        print_json({**_rule_json(rule), **values})
        return
    print_line(f"{rule.id}: {rule.title} ({rule.citation}; coefficients {rule.mark})")
    print_line(f"  {rule.form}")
    print_line(f"  {rule.meaning}; from {', '.join(rule.needs)}")
    if values:
        print_table(["at this compute", ""], [(name, format_number(value, 4)) for name, value in values.items()])
