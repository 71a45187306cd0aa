"""What the rows of a table are: measured runs, sweeps at one design, repeats, copies."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moelab.errors import InputError
from moelab.fitting.checks import numbers
from moelab.fitting.columns import Columns
from moelab.fitting.findings import Finding
from moelab.fitting.table_columns import (
    SWEPT,
    codes,
    following,
    present,
    row_groups,
    setting_columns,
)
from moelab.fitting.table_runs import run_column

Array = NDArray[Any]
_SHOWN = 4
"""Files that a note lists."""
_ROUNDED = 1e-9
"""Distance from three digits after the point below which most losses are rounded: equal ones are then no copies."""


def measured_runs(table: Any, loss: str) -> tuple[Any, Array | None, list[Finding]]:
    """A file's or data frame's rows that have a loss, which rows those are (None: all), and a note on the others.

    A mapping is left as it is: a number that is not finite is refused there.
    """
    if isinstance(table, str | Path):
        from moelab.runs.table import load_table  # polars takes a third of a second to load; a plan needs none

        table = load_table(table)
    if not hasattr(table, "get_columns") or loss not in table.columns or not table[loss].dtype.is_numeric():
        return table, None, []
    missing = np.isnan(table[loss].cast(float).to_numpy())
    if not missing.any():
        return table, None, []
    if missing.all():
        raise InputError(f"{loss}: no row has a value")
    text = f"{int(missing.sum())} of {len(missing)} rows have no {loss} and are left out"
    return table.filter(~missing), ~missing, [Finding(check="missing", text=text)]


def best_rows(columns: Columns, designs: Sequence[str], loss: str) -> Array:
    """The row of the lowest loss of each distinct combination of the `designs` columns, in the table's order.

    Raises InputError for a column that is not there.
    """
    for name in (*designs, loss):
        if name not in columns:
            raise InputError(f"best-of: the table has no column {name!r}; its columns: {', '.join(columns)}")
    values = numbers(columns[loss], loss)
    label = row_groups(columns, designs)
    order = np.lexsort((np.where(np.isfinite(values), values, np.inf), label))
    first = np.unique(label[order], return_index=True)[1]
    return np.sort(order[first])


def copy_findings(columns: Columns, target: str) -> list[Finding]:
    rows = len(next(iter(columns.values())))
    if target in columns and len(codes(columns[target])[1]) == rows:
        return []
    same = row_groups(columns, columns)
    copies, where = rows - len(np.unique(same)), "in every column"
    if not copies and _measured_exactly(columns, target) and run_column(columns) is None:
        # A run that stands twice under two names, or in two files: noise gives no two runs the same loss.
        same = row_groups(columns, [*setting_columns(columns, target), target])
        copies, where = rows - len(np.unique(same)), f"in every setting and in {target}, to the last digit"
    if not copies:
        return []
    seeds = [name for name in columns if name.lower() in ("seed", "replicate") and len(codes(columns[name])[1]) > 1]
    keep = ",".join([*_fewest(columns, design_columns(columns, target)), *seeds])
    text = f"{copies} of {rows} rows are copies of another row {where}"
    return [Finding(check="copies", text=text, mend=f"--best-of {keep}" if keep else "")]


def _measured_exactly(columns: Columns, target: str) -> bool:
    """Whether a table has sizes or data, and losses of so many digits that no two runs share one by chance."""
    if target not in columns or not any(n.startswith("params_") or n == "tokens" for n in columns):
        return False
    try:
        values = numbers(columns[target], target)
    except InputError:
        return False
    values = values[np.isfinite(values)]
    return bool(len(values) and np.median(np.abs(values - np.round(values, 3))) > _ROUNDED)


def design_columns(columns: Columns, target: str) -> list[str]:
    """The setting columns that vary, without what is swept, FLOPs and what only follows from others."""
    settings = setting_columns(columns, target)
    left = (*SWEPT, "train_flops", "flops_per_token", *following(columns, settings))
    return [n for n in settings if n.lower() not in left and n not in left and len(codes(columns[n])[1]) > 1]


def _fewest(columns: Columns, names: Sequence[str]) -> list[str]:
    """Those of the columns, sizes and data first, that together distinguish as many designs as all of them."""
    first = ("params_total", "params_active", "params", "tokens", "n_experts", "top_k", "granularity")
    order = sorted(names, key=lambda name: first.index(name) if name in first else len(first))
    kept: list[str] = []
    most, found = len(np.unique(row_groups(columns, names))), 1
    for name in order:
        count = len(np.unique(row_groups(columns, [*kept, name])))
        if count > found:
            kept, found = [*kept, name], count
        if found == most:
            break
    return kept


def sweep_findings(columns: Columns, target: str) -> list[Finding]:
    swept = [name for name in present(columns, SWEPT) if len(codes(columns[name])[1]) > 1]
    designs = design_columns(columns, target)
    if not swept or not designs or run_column(columns) is not None:
        return []
    label = row_groups(columns, designs)
    varied = [n for n in swept if len(np.unique(row_groups(columns, [*designs, n]))) > len(np.unique(label))]
    if not varied:
        return []
    return [
        Finding(
            check="sweep",
            text=f"{len(label)} rows sweep {' and '.join(varied)} over {len(np.unique(label))} designs",
            mend=f"keep the best of each with --best-of {','.join(_fewest(columns, designs))}",
        )
    ]


def repeat_findings(columns: Columns, target: str) -> list[Finding]:
    """Rows that agree in every setting, where no column shows that their seeds differ."""
    settings = setting_columns(columns, target)
    if any(name.lower() in ("seed", "replicate") for name in columns) or run_column(columns) is not None:
        return []
    if target not in columns or not any(name in columns for name in ("tokens", "params_total", "params_active")):
        return []
    label = row_groups(columns, settings)
    if len(label) == label.max(initial=-1) + 1:
        return []
    distinct = len(np.unique(row_groups({**columns, "row of": label}, ["row of", target])))
    repeats = distinct - len(np.unique(label))
    if not repeats:
        return []
    text = f"{repeats} rows repeat the settings of another one with another loss"
    if _apart(columns, label):
        files = codes(columns["file"])[1]
        text += f" from another file ({', '.join(map(str, files[:_SHOWN]))}{', ...' if len(files) > _SHOWN else ''})"
        mend = f"do their losses compare? keep one file with --where \"file = '{files[0]}'\", or add a column seed"
        return [Finding(check="repeats", text=text, mend=mend)]
    text += ", and no column names a seed"
    return [Finding(check="repeats", text=text, mend="add a column seed, or whatever else differs between them")]


def _apart(columns: Columns, label: Array) -> bool:
    """Whether rows of equal settings stand in different files throughout."""
    if "file" not in columns:
        return False
    within = row_groups({"settings": label, "file": columns["file"]}, ["settings", "file"])
    return len(np.unique(within)) == len(within)
