"""`moelab isoflop`: the optimum along one axis at fixed compute, with an interval."""

from typing import Annotated, Any

import typer


def command(
    runs: Annotated[str, typer.Argument(help="Folder of runs, CSV, Parquet or JSON lines.")],
    x: Annotated[str, typer.Option("--x", help="Axis, such as activation_rate, params_total or granularity.")],
    log: Annotated[bool, typer.Option("--log", help="Parabola in the logarithm of the axis.")] = False,
    loss: Annotated[str, typer.Option(help="Column of the loss.")] = "loss",
    let: Annotated[list[str] | None, typer.Option(help="Add a column: NAME = expression.")] = None,
    where: Annotated[list[str] | None, typer.Option(help="Keep rows for which this condition holds.")] = None,
    draws: Annotated[
        int | None, typer.Option(help="Draws for the interval; default: 1000 parabolas, 100 surfaces.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the draws.")] = 0,
    surface: Annotated[
        bool, typer.Option("--surface", help="Abnar's surface over params_total and sparsity; --x is one of the two.")
    ] = False,
    plot: Annotated[
        str | None, typer.Option(help="Write the slice or surface as a figure (.html, .svg, .png, .pdf).")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON only.")] = False,
) -> None:
    """Find where along one axis the loss is lowest, from runs of one compute.

    Example: moelab isoflop runs/ --x activation_rate --log --where 'train_flops < 1.1e15'
    """
    from moelab.cli.output import print_json, print_line, print_table
    from moelab.cli.outputs import FIGURES, check_output
    from moelab.errors import InputError
    from moelab.fitting.columns import columns_of, variable
    from moelab.fitting.slice import compute_notes, isoflop_slice
    from moelab.runs.table import load_table

    check_output(plot, "--plot", FIGURES)
    if surface:
        _check_surface(x, log)
    columns = columns_of(load_table(runs, let or [], where or []))
    values = variable(columns, x)
    for name, found in ((x, values), (loss, columns.get(loss))):
        if found is None:
            raise InputError(f"isoflop: the table has no column {name!r}; its columns: {', '.join(columns)}")
    if surface:
        _surface(columns, x, loss, 100 if draws is None else draws, seed, plot, json)
        return
    count = 1000 if draws is None else draws
    result = isoflop_slice(values, variable(columns, loss), name=x, log=log, draws=count, seed=seed)
    notes = [*compute_notes(columns), *result.notes]
    if plot:
        from moelab.report.save import save_figure

        save_figure(result.plot(), plot)
    if json:
        print_json(
            {
                "x": x,
                "log": log,
                "optimum": result.optimum,
                "loss_at_optimum": result.loss_at_optimum,
                "curvature": result.curvature,
                "n_points": result.n_points,
                "draws_outside": result.outside,
                "r_squared": result.r_squared,
                "notes": notes,
            }
        )
        return
    rows = [(f"best {x}", *_cells(result.optimum)), (f"{loss} there", *_cells(result.loss_at_optimum))]
    print_table([f"{result.n_points} points", "value", "p10", "p90"], rows)
    print_line(f"curvature {result.curvature:.4g} per {'ln ' if log else ''}{x} squared; R^2 {result.r_squared:.4g}")
    for note in notes:
        print_line(f"note: {note}")
    if result.outside > 0.1 * count:
        print_line(f"note: {result.outside} of {count} drawn parabolas have no minimum among the points")


def _check_surface(x: str, log: bool) -> None:
    """Raises InputError for options of a slice that a surface cannot follow."""
    from moelab.errors import InputError
    from moelab.fitting.surface import AXES

    if x not in AXES:
        raise InputError(f"--x: with --surface expected one of {', '.join(AXES)}, got {x!r}")
    if log:
        raise InputError("--log: a surface is in ln params_total and -ln(1 - sparsity) already; leave it out")


def _surface(columns: dict[str, Any], x: str, loss: str, draws: int, seed: int, plot: str | None, json: bool) -> None:
    from moelab.cli.output import print_json, print_line, print_table
    from moelab.errors import InputError
    from moelab.fitting.columns import variable
    from moelab.fitting.slice import compute_notes
    from moelab.fitting.surface import isoflop_surface

    needed = {name: variable(columns, name) for name in ("params_total", "sparsity", loss)}
    for name, values in needed.items():
        if values is None:
            raise InputError(f"isoflop: the table has no column {name!r}; its columns: {', '.join(columns)}")
    result = isoflop_surface(*needed.values(), subsamples=draws, seed=seed)
    best, notes = result.optimum(), compute_notes(columns)
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
        [f"{result.n_points} runs", "value", "p10", "p90"], [(name, *_cells(value)) for name, value in best.items()]
    )
    print_line(f"degrees (n, s, n s) {result.degrees}; correlation on held-out folds {result.correlation:.3f}")
    unit = "ln params_total" if x == "params_total" else "-ln(1 - sparsity)"
    print_line(f"curvature {result.curvature(x):.4g} per {unit} squared")
    for note in notes:
        print_line(f"note: {note}")
    for name in result.at_edge():
        print_line(f"note: the best {name} lies at the edge of the runs")


def _cells(value: dict[str, float | None]) -> tuple[str, ...]:
    return tuple("-" if number is None else f"{number:.4g}" for number in value.values())
