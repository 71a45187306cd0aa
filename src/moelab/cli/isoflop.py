"""`moelab isoflop`: the optimum along one axis at fixed compute, with an interval."""

from typing import Annotated, Any

import typer


def command(
    runs: Annotated[str, typer.Argument(help="Folder of runs, CSV, Parquet or JSON lines.")],
    x: Annotated[str, typer.Option("--x", help="Axis, such as activation_rate, params_total or granularity.")],
    log: Annotated[bool, typer.Option("--log", help="Parabola in the logarithm of the axis.")] = False,
    loss: Annotated[str, typer.Option(help="Column of the loss.")] = "loss",
    let: Annotated[list[str] | None, typer.Option(help="Add a column: NAME = SQL expression.")] = None,
    where: Annotated[list[str] | None, typer.Option(help="Keep rows for which this SQL condition holds.")] = None,
    draws: Annotated[int, typer.Option(help="Draws of the parabola for the interval.")] = 1000,
    seed: Annotated[int, typer.Option(help="Seed of the draws.")] = 0,
    surface: Annotated[
        bool, typer.Option("--surface", help="Abnar's surface over params_total and sparsity instead of one axis.")
    ] = False,
    plot: Annotated[str | None, typer.Option(help="Write the slice as a figure (.html, .svg, .png, .pdf).")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON only.")] = False,
) -> None:
    """Find where along one axis the loss is lowest, from runs of one compute.

    Example: moelab isoflop runs/ --x activation_rate --log --where 'train_flops < 1.1e15'
    """
    from moelab.cli.output import print_json, print_line, print_table
    from moelab.cli.outputs import FIGURES, check_output
    from moelab.errors import InputError
    from moelab.fitting.columns import columns_of, variable
    from moelab.fitting.slice import isoflop_slice
    from moelab.runs.table import load_table

    check_output(plot, "--plot", FIGURES)
    columns = columns_of(load_table(runs, let or [], where or []))
    values = variable(columns, x)
    for name, found in ((x, values), (loss, columns.get(loss))):
        if found is None:
            raise InputError(f"isoflop: the table has no column {name!r}; its columns: {', '.join(columns)}")
    if surface:
        _surface(columns, loss, seed, json)
        return
    result = isoflop_slice(values, variable(columns, loss), name=x, log=log, draws=draws, seed=seed)
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
            }
        )
        return
    rows = [(f"best {x}", *_cells(result.optimum)), (f"{loss} there", *_cells(result.loss_at_optimum))]
    print_table([f"{result.n_points} points", "value", "p10", "p90"], rows)
    print_line(f"curvature {result.curvature:.4g} per {'ln ' if log else ''}{x} squared")
    if result.outside > 0.1 * draws:
        print_line(f"note: {result.outside} of {draws} drawn parabolas have no minimum among the points")


def _surface(columns: dict[str, Any], loss: str, seed: int, json: bool) -> None:
    from moelab.cli.output import print_json, print_line, print_table
    from moelab.errors import InputError
    from moelab.fitting.columns import variable
    from moelab.fitting.surface import isoflop_surface

    needed = {name: variable(columns, name) for name in ("params_total", "sparsity", loss)}
    for name, values in needed.items():
        if values is None:
            raise InputError(f"isoflop: the table has no column {name!r}; its columns: {', '.join(columns)}")
    result = isoflop_surface(*needed.values(), seed=seed)
    best = result.optimum()
    if json:
        print_json(
            {
                "optimum": best,
                "degrees": result.degrees,
                "correlation": result.correlation,
                "n_points": result.n_points,
                "at_edge": result.at_edge(),
            }
        )
        return
    print_table(
        [f"{result.n_points} runs", "value", "p10", "p90"], [(name, *_cells(value)) for name, value in best.items()]
    )
    print_line(f"degrees (n, s, n s) {result.degrees}; correlation on held-out folds {result.correlation:.3f}")
    for name in result.at_edge():
        print_line(f"note: the best {name} lies at the edge of the runs")


def _cells(value: dict[str, float | None]) -> tuple[str, ...]:
    return tuple("-" if number is None else f"{number:.4g}" for number in value.values())
