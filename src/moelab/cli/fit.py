"""`moelab fit`: fit scaling laws to a table of runs, with intervals and held-out error."""

from typing import Annotated, Any

import typer

from moelab.cli.law_files import LawFiles
from moelab.cli.shares import read_share

OF_FITS = (
    "fix", "share", "holdout", "holdout_by", "holdout_where", "objective", "bootstrap", "group", "weight", "starts",
    "prior", "seed",
)  # fmt: skip
"""Options of a fit, which a check of the table does not read."""


def command(
    asked: typer.Context,
    runs: Annotated[
        list[str], typer.Argument(help="Folder of runs, CSV, Parquet, JSON or xlsx; a pattern, or several files.")
    ],
    law: Annotated[list[str] | None, typer.Option("--law", help="A law's or rule's id, or all; repeatable.")] = None,
    law_file: LawFiles = None,
    let: Annotated[
        list[str] | None, typer.Option(help="Add a column: NAME = expression; names with spaces in double quotes.")
    ] = None,
    where: Annotated[list[str] | None, typer.Option(help="Keep rows for which this condition holds.")] = None,
    best_of: Annotated[
        str | None, typer.Option(help="Keep the best run of each design; the columns that name one: NAME,NAME.")
    ] = None,
    loss: Annotated[str | None, typer.Option(help="Column to fit.", show_default="loss")] = None,
    check: Annotated[bool, typer.Option("--check", help="Check the table and fit nothing.")] = False,
    fix: Annotated[list[str] | None, typer.Option(help="Hold a coefficient: NAME=VALUE.")] = None,
    share: Annotated[list[str] | None, typer.Option(help="Fit coefficients as one number: NAME,NAME.")] = None,
    holdout: Annotated[
        float | None,
        typer.Option(
            parser=read_share,
            help="Share of the largest-compute runs to hold out; 0 for none.",
            show_default="0.2 where possible",
        ),
    ] = None,
    holdout_by: Annotated[str | None, typer.Option(help="Leave out each value of this column in turn.")] = None,
    holdout_where: Annotated[str | None, typer.Option(help="Hold out the rows for which this holds.")] = None,
    objective: Annotated[
        str | None,
        typer.Option(
            help="huber:DELTA or squared on log loss, or floor:DELTA:WEIGHT.",
            show_default="huber:1e-3, for rules squared",
        ),
    ] = None,
    bootstrap: Annotated[int, typer.Option(help="Bootstrap replicates.")] = 1000,
    group: Annotated[
        str | None,
        typer.Option(
            help="Resample whole groups of this column; none: single rows.", show_default="the runs of checkpoints"
        ),
    ] = None,
    weight: Annotated[str | None, typer.Option(help="Column of weights.")] = None,
    starts: Annotated[int, typer.Option(help="Random starts.")] = 512,
    prior: Annotated[
        str | None, typer.Option(help="What other tables found: a prior's file, or none.", show_default="the law's own")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of starts and bootstrap.")] = 0,
    out: Annotated[str | None, typer.Option(help="Write the fit here; moelab predict and plan read it.")] = None,
    plot: Annotated[
        str | None, typer.Option(help="Write predicted against measured (.html, .svg, .png, .pdf).")
    ] = None,
    plot_holdout: Annotated[
        str | None, typer.Option(help="Write held-out error against extrapolation (.html, .svg, .png, .pdf).")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON only.")] = False,
) -> None:
    """Fit laws to a table of runs, with intervals and held-out error.

    The table is checked first; each note ends with the option that mends it.

    Example: moelab fit runs.csv --law all --let 'tokens = "Training FLOP" / (6 * "Model Size")' --out fit.json
    """
    from moelab.cli.assignments import parse_assignments
    from moelab.cli.fit_tables import print_comparison
    from moelab.cli.given import refuse_given
    from moelab.cli.output import print_json, print_line
    from moelab.cli.outputs import FIGURES, check_output
    from moelab.cli.progress import share_done
    from moelab.errors import InputError
    from moelab.fitting import save_fits
    from moelab.fitting.compare import compare_laws
    from moelab.fitting.fit_file import fit_to_json
    from moelab.laws.rule_forms import is_rule_form
    from moelab.runs.table import load_table, rows_where

    law = [*(law or []), *(law_file or [])]
    if not law and not check:
        raise InputError("--law: expected a law's id or all (--check checks the table alone)")
    if check:
        _nothing_to_write({"--out": out, "--plot": plot, "--plot-holdout": plot_holdout})
        refuse_given(asked, OF_FITS, "--check fits nothing; leave out one of the two")
    check_output(out, "--out")
    check_output(plot, "--plot", FIGURES)
    check_output(plot_holdout, "--plot-holdout", FIGURES)
    rules = [name for name in law if is_rule_form(name)]
    if rules:
        unused = {"--best-of": best_of, "--plot": plot, "--plot-holdout": plot_holdout, "--prior": prior}
        _check_rules(law, rules, unused)
    table = load_table(runs, let or [], where or [])
    if best_of:
        table = _best(table, best_of, loss or "loss")
    if check:
        _check(table, loss, json)
        return
    options: dict[str, Any] = {
        "holdout_by": holdout_by,
        "holdout_rows": None if holdout_where is None else rows_where(table, holdout_where),
        "loss": loss,
        "fix": parse_assignments(fix or [], "--fix"),
        "share": [[name.strip() for name in names.split(",")] for names in share or []],
        "bootstrap": bootstrap,
        "group": group,
        "weight": weight,
        "seed": seed,
        "starts": starts,
        **({} if objective is None else {"objective": objective}),
    }
    if rules:
        _fit_rules(table, law, out, json, holdout=holdout, **options)
        return
    ids = None if "all" in law else [_known(name) for name in law]
    with share_done("bootstrap", quiet=json) as progress:
        result = compare_laws(
            table,
            ids,
            holdout=None if holdout == 0 else holdout,
            holdout_optional=holdout is None,
            prior=prior,
            progress=progress,
            **options,
        )
    if out:
        save_fits(result.fits, out)
    if plot:
        from moelab.report.save import save_figure

        save_figure(result.plot(), plot)
    if plot_holdout:
        from moelab.report.save import save_figure

        save_figure(result.plot_holdout(), plot_holdout)
    if json:
        print_json(
            {
                "fits": {name: fit_to_json(fitted, draws=False) for name, fitted in result.fits.items()},
                "weights": result.weights,
                "skipped": result.skipped,
                "findings": [finding.to_dict() for finding in result.findings],
                "differ_most": [found.to_dict() for found in result.differ_most],
            }
        )
        return
    print_comparison(result)
    if out:
        print_line(f"written to {out}")


def _nothing_to_write(given: dict[str, str | None]) -> None:
    """Raises InputError for a file that `--check` would not write."""
    from moelab.errors import InputError

    for option, value in given.items():
        if value:
            raise InputError(f"{option}: --check fits nothing, so there is nothing to write; leave out one of the two")


def _check_rules(names: list[str], rules: list[str], given: dict[str, str | None]) -> None:
    """Raises InputError where rules are asked together with laws or with what is not theirs."""
    from moelab.errors import InputError

    if len(rules) < len(names):
        raise InputError("--law: rules for learning rate and batch are fitted by themselves, without laws of the loss")
    for option, value in given.items():
        if value:
            why = "a rule needs the whole sweep" if option == "--best-of" else "a rule's fit is not drawn"
            raise InputError(f"{option}: {why}; leave it out with --law {rules[0]}")


def _fit_rules(table: Any, names: list[str], out: str | None, json: bool, **options: Any) -> None:
    """Fit rules for learning rate and batch to the table's sweeps."""
    from moelab.cli.fit_tables import print_fit, print_optima
    from moelab.cli.output import print_json, print_line
    from moelab.fitting.rules import fit_rule, rules_to_json, save_rules

    rules = {name: fit_rule(table, name, **options) for name in names}
    if out:
        save_rules(rules, out)
    if json:
        print_json(rules_to_json(rules, draws=False))
        return
    for rule in rules.values():
        for quantity, fitted in rule.fits.items():
            print_fit(fitted, of="designs")
            print_optima(quantity, rule.optima[quantity])
            held = fitted.holdout
            if held is not None:
                print_line(
                    f"held-out error {held.mean_abs_rel:.1%} of {held.n_runs} designs, bias {held.bias_rel:+.1%}"
                )
            print_line()
    if out:
        print_line(f"written to {out}")


def _best(table: Any, designs: str, loss: str) -> Any:
    """The best run of each design."""
    from moelab.fitting.columns import columns_of
    from moelab.fitting.table_rows import best_rows

    names = [name.strip() for name in designs.split(",") if name.strip()]
    return table[best_rows(columns_of(table), names, loss)]


def _check(table: Any, loss: str | None, json: bool) -> None:
    from moelab.cli.output import print_json, print_line
    from moelab.fitting.table_checks import check_table

    findings = check_table(table, loss)
    if json:
        print_json({"n_rows": table.height, "findings": [finding.to_dict() for finding in findings]})
        return
    for finding in findings:
        print_line(f"note: {finding}")
    notes = "1 note" if len(findings) == 1 else f"{len(findings) or 'no'} notes"
    print_line(f"{table.height} rows, {len(table.columns)} columns: {notes}")


def _known(name: str) -> str:
    from pathlib import Path

    from moelab.errors import InputError
    from moelab.laws import get_law

    if Path(name).is_file():
        raise InputError(f"--law: fit takes a law's id or all; {name} is a file (moelab predict reads fit files)")
    return get_law(name).id
