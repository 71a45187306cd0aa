"""`moelab runs`: the runs of a folder as a table."""

from pathlib import Path
from typing import Annotated

import typer

from moelab.quantities import format_number

SHOWN = (
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
    runs: Annotated[Path, typer.Argument(help="A folder of runs, or a CSV, Parquet or JSON-lines table.")],
    let: Annotated[list[str] | None, typer.Option(help="Add a column: 'per_param = tokens / params_active'.")] = None,
    where: Annotated[list[str] | None, typer.Option(help="Keep rows: 'n_experts > 1'.")] = None,
    sort: Annotated[str, typer.Option(help="Column to sort by.")] = "train_flops",
    columns: Annotated[str | None, typer.Option(help="Columns to show, separated by commas, or `all`.")] = None,
    out: Annotated[Path | None, typer.Option(help="Also write the table: .csv, .parquet or .jsonl.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the rows as JSON.")] = False,
) -> None:
    """List, filter, sort and export runs.

    Example: moelab runs studies/quickstart/runs --where 'n_experts > 1' --sort loss --out moe.csv
    """
    from difflib import get_close_matches

    from moelab.cli.output import print_json, print_table
    from moelab.errors import InputError
    from moelab.runs.table import load_table, save_table

    table = load_table(runs, let or [], where or [], diverged=True)
    added = [assignment.partition("=")[0].strip().strip('"') for assignment in let or []]
    wanted = table.columns if columns == "all" else columns.split(",") if columns else [*SHOWN, *added]
    for option, name in [*(("--columns", name) for name in wanted if columns), ("--sort", sort)]:
        if name not in table.columns:
            near = get_close_matches(name, table.columns, n=4, cutoff=0.4)
            close = f"; close: {', '.join(near)}" if near else "; --columns all shows them"
            raise InputError(f"{option}: no column {name!r} among {len(table.columns)}{close}")
    table = table.sort(sort, nulls_last=True)
    if out is not None:
        save_table(table, out)
    if as_json:
        print_json(table.to_dicts())
        return
    shown = [name for name in wanted if name in table.columns]
    if columns is None and set(table["status"] if "status" in shown else ()) == {"finished"}:
        shown.remove("status")
    print_table(shown, ([_cell(name, row[name]) for name in shown] for row in table.select(shown).to_dicts()))


def _cell(name: str, value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4f}" if "loss" in name or "bits" in name else format_number(value)
    return "-" if value is None else str(value)
