"""`moelab isoflop`: the optimum along one axis at fixed compute, with an interval."""

from typing import Annotated, Any

import typer

from moelab.cli.shares import read_share


def command(
    runs: Annotated[
        list[str], typer.Argument(help="Folder of runs, CSV, Parquet, JSON or xlsx; a pattern, or several files.")
    ],
    x: Annotated[str, typer.Option("--x", help="Axis, such as activation_rate, params_total or granularity.")],
    log: Annotated[
        bool | None,
        typer.Option(
            "--log/--linear",
            help="Parabola in the logarithm of the axis, or in the axis itself.",
            show_default="log for sizes, tokens, experts and FLOPs",
        ),
    ] = None,
    loss: Annotated[str, typer.Option(help="Column of the loss.")] = "loss",
    let: Annotated[list[str] | None, typer.Option(help="Add a column: NAME = expression.")] = None,
    where: Annotated[list[str] | None, typer.Option(help="Keep rows for which this condition holds.")] = None,
    best_of: Annotated[
        str | None, typer.Option(help="Keep the best run of each design; the columns that name one: NAME,NAME.")
    ] = None,
    draws: Annotated[
        int | None, typer.Option(help="Draws for the interval.", show_default="1000 parabolas, 100 surfaces")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the draws.")] = 0,
    by: Annotated[
        str | None, typer.Option(help="A slice per budget: a column, or budget to find them from the runs' FLOPs.")
    ] = None,
    tolerance: Annotated[
        float | None,
        typer.Option(
            parser=read_share,
            help="Relative gap of FLOPs that begins another budget, with --by budget.",
            show_default="0.03",
        ),
    ] = None,
    at: Annotated[
        list[str] | None, typer.Option(help="The optimum at this compute, such as 1e22, with --by; repeatable.")
    ] = None,
    surface: Annotated[
        bool, typer.Option("--surface", help="Abnar's surface over params_total and sparsity; --x is one of the two.")
    ] = False,
    plot: Annotated[
        str | None, typer.Option(help="Write the slice or surface as a figure (.html, .svg, .png, .pdf).")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON only.")] = False,
) -> None:
    """Find the lowest loss along one axis at one compute, or at each of several with its power law.

    Example: moelab isoflop runs.csv --x params_active --by budget --at 1e22

    Example: moelab isoflop runs/ --x activation_rate --log --where 'train_flops < 1.1e15'
    """
    from moelab.cli.isoflop_checks import checked
    from moelab.cli.isoflop_tables import cells, curves_of
    from moelab.cli.output import print_json, print_line, print_table
    from moelab.cli.outputs import FIGURES, check_output
    from moelab.errors import InputError
    from moelab.fitting.budget_groups import TOLERANCE, compute_notes
    from moelab.fitting.columns import variable
    from moelab.fitting.intervals import outside_note
    from moelab.fitting.slice import isoflop_slice
    from moelab.fitting.slice_kinds import mixed_notes
    from moelab.runs.table import load_table

    check_output(plot, "--plot", FIGURES)
    if at and by is None:
        raise InputError("--at: goes with --by budget")
    if tolerance is not None and by != "budget":
        raise InputError("--tolerance: goes with --by budget")
    if surface:
        _check_surface(x, log, by)
    columns, found_notes = checked(load_table(runs, let or [], where or []), loss, best_of)
    values = variable(columns, x)
    for name, found in ((x, values), (loss, columns.get(loss))):
        if found is None:
            raise InputError(f"isoflop: the table has no column {name!r}; its columns: {', '.join(columns)}")
    found_notes = [*found_notes, *mixed_notes(columns, x, by)]
    if by is not None:
        _budgets(
            columns, x, loss, by, TOLERANCE if tolerance is None else tolerance, at, log,
            1000 if draws is None else draws, seed, plot, json, found_notes,
        )  # fmt: skip
        return
    if surface:
        _surface(columns, x, loss, 100 if draws is None else draws, seed, plot, json, found_notes)
        return
    count = 1000 if draws is None else draws
    result = isoflop_slice(values, variable(columns, loss), name=x, log=log, draws=count, seed=seed)
    notes = [
        *found_notes,
        *compute_notes(columns),
        *result.notes,
        *outside_note(f"{loss} there", result.loss_at_optimum),
    ]
    if plot:
        from moelab.report.save import save_figure

        save_figure(result.plot(), plot)
    if json:
        print_json(
            {
                "x": x,
                "log": result.log,
                "optimum": result.optimum,
                "loss_at_optimum": result.loss_at_optimum,
                "curvature": result.curvature,
                "n_points": result.n_points,
                "draws_outside": result.outside,
                "r_squared": result.r_squared,
                "notes": notes,
                "edge": result.edge,
                "noise": result.noise,
                "repeats": result.repeats,
                "curves": curves_of(result),
            }
        )
        return
    rows = [(f"best {x}", *cells(result.optimum)), (f"{loss} there", *cells(result.loss_at_optimum))]
    print_table([f"{result.n_points} points", "value", "p10", "p90"], rows)
    print_line(
        f"curvature {result.curvature:.4g} per {'ln ' if result.log else ''}{x} squared; R^2 {result.r_squared:.4g}"
    )
    for note in notes:
        print_line(f"note: {note}")
    if result.outside > 0.1 * count:
        print_line(f"note: {result.outside} of {count} drawn parabolas have no minimum among the points")


def _budgets(
    columns: dict[str, Any],
    x: str,
    loss: str,
    by: str,
    tolerance: float,
    at: list[str] | None,
    log: bool | None,
    draws: int,
    seed: int,
    plot: str | None,
    json: bool,
    notes: list[str],
) -> None:
    from moelab.cli.isoflop_tables import print_budgets
    from moelab.cli.output import print_json, print_line
    from moelab.errors import InputError
    from moelab.fitting.budgets import isoflop_budgets
    from moelab.fitting.full_fit import full_fit
    from moelab.quantities import parse_number

    flops = list(dict.fromkeys(parse_number(each, "--at") for each in at or ()))
    if wrong := [each for each in flops if not each > 0]:
        raise InputError(f"--at: must be above 0, got {wrong[0]:g}")
    found = isoflop_budgets(columns, x, loss=loss, by=by, tolerance=tolerance, log=log, draws=draws, seed=seed)
    whole = full_fit(columns, x, loss, seed=seed)
    if plot:
        from moelab.report.save import save_figure

        save_figure(found.plot(), plot)
    if json:
        shown = found.to_dict(flops, whole)
        print_json({**shown, "notes": [*notes, *shown["notes"]]})
    else:
        for note in notes:
            print_line(f"note: {note}")
        print_budgets(found, flops, whole)


def _check_surface(x: str, log: bool | None, by: str | None) -> None:
    """Raises InputError for options of a slice that a surface cannot follow."""
    from moelab.errors import InputError
    from moelab.fitting.surface import AXES

    if x not in AXES:
        raise InputError(f"--x: with --surface expected one of {', '.join(AXES)}, got {x!r}")
    if by is not None:
        raise InputError("--by: a surface is of one compute; keep one budget with --where")
    if log is not None:
        flag = "--log" if log else "--linear"
        raise InputError(f"{flag}: a surface is in ln params_total and -ln(1 - sparsity); leave it out")


def _surface(
    columns: dict[str, Any], x: str, loss: str, draws: int, seed: int, plot: str | None, json: bool, notes: list[str]
) -> None:
    from moelab.cli.isoflop_tables import cells
    from moelab.cli.output import print_json, print_line, print_table
    from moelab.errors import InputError
    from moelab.fitting.budget_groups import compute_notes
    from moelab.fitting.columns import variable
    from moelab.fitting.surface import isoflop_surface

    needed = {name: variable(columns, name) for name in ("params_total", "sparsity", loss)}
    for name, values in needed.items():
        if values is None:
            raise InputError(f"isoflop: the table has no column {name!r}; its columns: {', '.join(columns)}")
    result = isoflop_surface(*needed.values(), subsamples=draws, seed=seed)
    best, notes = result.optimum(), [*notes, *compute_notes(columns), *result.notes]
    if plot:
        from moelab.report.save import save_figure

        save_figure(result.plot(), plot)
    if json:
        print_json(
            {
                "x": x,
                "log": True,
                "optimum": best[x],
                "loss_at_optimum": best["loss"],
                "curvature": result.curvature(x),
                "surface": best,
                "degrees": result.degrees,
                "correlation": result.correlation,
                "n_points": result.n_points,
                "at_edge": result.at_edge(),
                "notes": notes,
            }
        )
        return
    print_table(
        [f"{result.n_points} runs", "value", "p10", "p90"], [(name, *cells(value)) for name, value in best.items()]
    )
    print_line(f"degrees (n, s, n s) {result.degrees}; correlation on held-out folds {result.correlation:.3f}")
    unit = "ln params_total" if x == "params_total" else "-ln(1 - sparsity)"
    print_line(f"curvature {result.curvature(x):.4g} per {unit} squared")
    for note in notes:
        print_line(f"note: {note}")
