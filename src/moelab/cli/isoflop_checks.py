"""What of a table would mislead along an isoFLOP slice."""

from typing import Any

CHECKED = ("missing", "checkpoints", "units", "flops", "summary", "copies", "sweep", "texts", "diverged", "running")
"""Checks of a table whose findings change a slice."""


def checked(table: Any, loss: str, best_of: str | None) -> tuple[dict[str, Any], list[str]]:
    """The columns of the runs with a loss, and notes on what would mislead along a slice."""
    from moelab.fitting.columns import columns_of
    from moelab.fitting.table_checks import check_table
    from moelab.fitting.table_rows import best_rows, measured_runs

    if best_of:
        names = [name.strip() for name in best_of.split(",") if name.strip()]
        table = table[best_rows(columns_of(table), names, loss)]
    found = [each for each in check_table(table, loss) if each.check in CHECKED]
    columns = columns_of(measured_runs(table, loss)[0])
    notes = [_of_checkpoints(columns, each.text) if each.check == "checkpoints" else str(each) for each in found]
    return columns, notes


def _of_checkpoints(columns: dict[str, Any], text: str) -> str:
    """The note on checkpoints, as it concerns a slice."""
    from moelab.fitting.table_columns import quoted
    from moelab.fitting.table_runs import run_column

    run = run_column(columns)
    whole = "" if run is None else f"; --best-of {quoted(run)} keeps the best of each"
    return f"{text.split(': ')[0]}: a slice takes every row as a run of its own{whole}"
