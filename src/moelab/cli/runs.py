"""`moelab runs`: the runs of a folder as a table."""

from pathlib import Path
from typing import Annotated

import typer

from moelab.quantities import format_number

SHOWN = (
    "run_id",
    "name",
    "status",
    "kind",
    "params_active",
    "params_total",
    "tokens",
    "train_flops",
    "loss",
    "loss_leak_free",
    "bits_per_byte",
    "tokens_per_second",
)


def command(
    runs: Annotated[
        Path, typer.Argument(help="A folder of runs, a study's folder, or a CSV, Parquet or JSON-lines table.")
    ],
    let: Annotated[
        list[str] | None, typer.Option(help="Add or change a column: 'per_param = tokens / params_active'.")
    ] = None,
    where: Annotated[list[str] | None, typer.Option(help="Keep rows: 'n_experts > 1'.")] = None,
    sort: Annotated[
        str | None, typer.Option(help="Column to sort by, -COLUMN: largest first.", show_default="train_flops")
    ] = None,
    columns: Annotated[
        str | None,
        typer.Option(help="Columns, separated by commas, or `all`.", show_default="a few; with --json and --out all"),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Also write the table: .csv, .parquet or .jsonl.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the rows as JSON.")] = False,
) -> None:
    """List, filter, sort and export runs.

    Example: moelab runs studies/quickstart --where 'n_experts > 1' --sort -tokens --out moe.csv
    """
    from difflib import get_close_matches

    from moelab.cli.output import print_json, print_table
    from moelab.errors import InputError
    from moelab.runs.table import load_table, save_table, sort_rows

    table = load_table(runs, let or [], where or [], diverged=True)
    added = [assignment.partition("=")[0].strip().strip('"') for assignment in let or []]
    asked = table.columns
    if columns is not None and columns != "all":
        asked = list(dict.fromkeys(name.strip() for name in columns.split(",")))
    descending = sort is not None and sort.startswith("-") and sort not in table.columns
    by = (sort[1:] if descending else sort) if sort else None
    for option, name in [*(("--columns", name) for name in asked), *([("--sort", by)] if by is not None else [])]:
        if name not in table.columns:
            near = get_close_matches(name, table.columns, n=4, cutoff=0.4)
            close = f"; close: {', '.join(near)}" if near else "; --columns all shows them"
            raise InputError(f"{option}: no column {name!r} among {len(table.columns)}{close}")
    by = by or ("train_flops" if "train_flops" in table.columns else None)
    table = (sort_rows(table, by, descending) if by else table).select(asked)
    if out is not None:
        save_table(table, out)
    if as_json:
        print_json(table.to_dicts())
        return
    shown = table.columns
    if columns is None:
        shown = [name for name in dict.fromkeys((*SHOWN, *added)) if name in table.columns] or table.columns
        if "status" in shown and set(table["status"]) == {"finished"}:
            shown.remove("status")
    print_table(shown, ([_cell(name, row[name]) for name in shown] for row in table.select(shown).to_dicts()))


def _cell(name: str, value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4f}" if "loss" in name or "bits" in name else format_number(value)
    return "-" if value is None else str(value)
