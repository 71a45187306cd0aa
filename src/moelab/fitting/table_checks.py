"""Checks of a table before a fit: what would make the fit mean something else than it seems, and what mends it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moelab.errors import InputError
from moelab.fitting.blanks import filled
from moelab.fitting.checks import numbers
from moelab.fitting.columns import Columns, columns_of, variable
from moelab.fitting.fitted import FittedLaw
from moelab.fitting.table_columns import (
    RUN_NAMES,
    STEP_NAMES,
    SWEPT,
    codes,
    quoted,
    row_groups,
    setting_columns,
    suggestions,
)

Array = NDArray[Any]
TOO_FEW_TOKENS, TOO_FEW_PARAMS = 1e5, 100.0
"""A column of tokens or parameters that lies below this throughout is in thousands, millions or billions."""
LEAST_RATIO, MOST_RATIO = 0.01, 1e5
"""Tokens per parameter beyond which the two are in different units: public runs have 0.1 to 1e4."""
MOST_NATS, HIGH_NATS, LEAST_NATS = 15.0, 7.0, 0.2
"""A loss above all training starts at (12.2 for a vocabulary of 200,000), a median above, and a loss below, any trained
model."""
UNTRAINED = 10.4
"""ln 32,768: about where training starts."""
_TEXTS = {
    "tokenizers": ("tokenizer", "tokenizer_name", "tokenizer_hash", "vocab_size"),
    "texts": ("dataset", "corpus", "data", "data_hash", "manifest_hash", "train_data", "text", "eval_set"),
}
_FAILED = ("diverged", "crashed", "failed", "killed", "nan")
_UNITS = {"thousands": 1e3, "millions": 1e6, "billions": 1e9, "trillions": 1e12}


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing found in a table: the check's name, what was found, and the option that mends it ('' for none)."""

    check: str
    text: str
    mend: str = ""

    def __str__(self) -> str:
        return f"{self.text}; {self.mend}" if self.mend else self.text

    def to_dict(self) -> dict[str, str]:
        """Plain data: an entry of `moelab fit --check --json`."""
        return {"check": self.check, "text": self.text, "mend": self.mend}


def check_table(table: Any, loss: str | None = None) -> list[Finding]:
    """What a fit to this table should be warned of, the most important first. Nothing is changed.

    Args:
        table: The runs, as `moelab.fit` takes them.
        loss: The column to fit; None: loss.

    >>> import moelab
    >>> runs = {"params_total": [1e8, 2e8, 4e8], "tokens": [1.0, 2.0, 4.0], "loss": [3.5, 3.2, 3.0]}
    >>> print(moelab.check_table(runs)[0])
    tokens: 1 to 4 look like billions; --let 'tokens = 1e9 * tokens'
    """
    target = loss or "loss"
    table, _, found = measured_runs(table, target)
    columns, blanks = filled(columns_of(table))
    found += [Finding(check="blanks", text=text) for text in blanks]
    for check in _CHECKS:
        found += check(columns, target)
    return found


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


def run_column(columns: Columns) -> str | None:
    """The column whose values name runs of which several checkpoints are rows; None for a table of whole runs."""
    for name in _present(columns, RUN_NAMES):
        if _has_checkpoints(columns, name):
            return name
    return None


def _has_checkpoints(columns: Columns, name: str) -> bool:
    """Whether rows that share a value differ in their tokens or steps, and in no size."""
    runs = codes(columns[name])[0]
    counts = np.bincount(runs)
    if counts.max() < 2:
        return False
    repeated = counts[runs] > 1
    sizes = [n for n in columns if n.startswith("params_") or n in ("n_experts", "d_model", "n_layers", "params")]
    if len(np.unique(row_groups(columns, [name, *sizes])[repeated])) > int(np.sum(counts > 1)):
        return False
    for step in _present(columns, STEP_NAMES):
        if len(np.unique(row_groups(columns, [name, step])[repeated])) == int(repeated.sum()):
            return True
    return False


def _present(columns: Columns, names: tuple[str, ...]) -> list[str]:
    """The columns of these names, in the names' order, whatever their case."""
    by_name = {name.lower(): name for name in reversed(list(columns))}
    return [by_name[name] for name in names if name in by_name]


def _numbers(columns: Columns, name: str) -> Array | None:
    """The finite numbers of a column or of what it follows from; None for text or where there are none."""
    try:
        values = variable(columns, name)
    except InputError:
        return None
    if values is None:
        return None
    values = values[np.isfinite(values)]
    return values if len(values) else None


def _names(columns: Columns, target: str) -> list[Finding]:
    """Columns that look like a variable of a law, or like the loss, under another name."""
    found = []
    for name, (column, expression) in suggestions(columns).items():
        if name == "loss":
            if target not in columns:
                found.append(Finding(check="names", text=f"no column {target!r}", mend=f"--loss {quoted(column)}"))
        elif _missing(columns, name):
            found.append(
                Finding(
                    check="names",
                    text=f"{column!r} looks like {name}, which no column is named",
                    mend=f"--let '{name} = {expression}'",
                )
            )
    return found


def _missing(columns: Columns, name: str) -> bool:
    try:
        return variable(columns, name) is None
    except InputError:
        return False


def _units(columns: Columns, target: str) -> list[Finding]:
    found = []
    params = next(
        (
            v
            for n in ("params_total", "params_active", "params_non_embedding")
            if (v := _numbers(columns, n)) is not None
        ),
        None,
    )
    tokens = _numbers(columns, "tokens")
    ratio = float(np.median(tokens) / np.median(params)) if tokens is not None and params is not None else 20.0
    for name in ("tokens", "unique_tokens", "params_total", "params_active", "params_non_embedding"):
        values = _numbers(columns, name) if name in columns else None
        if values is None or not (values > 0).any():
            continue
        of_tokens = name.endswith("tokens")
        small = values.max() < (TOO_FEW_TOKENS if of_tokens else TOO_FEW_PARAMS)
        if of_tokens and params is not None:
            small = ratio < LEAST_RATIO or (small and params.max() < TOO_FEW_PARAMS)
        elif not of_tokens and tokens is not None:
            small = small or (ratio > MOST_RATIO and values.max() < 1e6)
        if not small:
            continue
        unit = _likely_unit(values, params if of_tokens else None)
        factor = f"{_UNITS[unit]:g}".replace("e+0", "e").replace("e+", "e")
        found.append(
            Finding(
                check="units",
                text=f"{name}: {values.min():g} to {values.max():g} look like {unit}",
                mend=f"--let '{name} = {factor} * {name}'",
            )
        )
    return found + _loss_unit(columns, target)


def units_of_fit(fitted: FittedLaw) -> list[Finding]:
    """Whether what a fit was given looks like another unit: predictions then need and give that unit."""
    columns = {name: np.array(limits) for name, limits in fitted.ranges.items()}
    return _units({**columns, fitted.law.kind: fitted.measured}, fitted.law.kind)


def _likely_unit(values: Array, params: Array | None) -> str:
    """The unit that brings tokens nearest to twenty per parameter; of sizes, the one that brings them into the range
    of language models (1e6 to 1e12)."""
    middle = float(np.median(values))
    aim = 20 * float(np.median(params)) if params is not None and np.median(params) > 1e5 else 1e9
    return min(_UNITS, key=lambda unit: abs(np.log(middle * _UNITS[unit] / aim)))


def _loss_unit(columns: Columns, target: str) -> list[Finding]:
    values = _numbers(columns, target) if target in columns else None
    if values is None or not (values > 0).all():
        return []
    low, middle, high = float(values.min()), float(np.median(values)), float(values.max())
    if middle > HIGH_NATS or (low > 4 and high > MOST_NATS):
        # In per cent the losses of a table lie within a factor of a few; as perplexities they span far more.
        percent = low > 100 and middle / 100 < UNTRAINED and high < 4 * low
        change = f"{quoted(target)} / 100" if percent else f"LN({quoted(target)})"
        unit = "per cent" if percent else "perplexity"
        text = f"{target}: {low:.4g} to {high:.4g} look like {unit}, not nats per token"
        return [Finding(check="units", text=text, mend=f"--let '{quoted(target)} = {change}'")]
    if high < LEAST_NATS:
        text = (
            f"{target}: at most {high:.4g} nats per token, which no language model reaches: another unit, or no loss?"
        )
        return [Finding(check="units", text=text)]
    return []


def _checkpoints(columns: Columns, target: str) -> list[Finding]:
    name = run_column(columns)
    if name is None:
        return []
    runs, rows = len(codes(columns[name])[1]), len(columns[name])
    text = f"{rows} rows are checkpoints of {runs} runs (column {name}): bootstrap and hold-out take whole runs"
    return [Finding(check="checkpoints", text=text, mend="--group none takes every row as a run of its own")]


def _copies(columns: Columns, target: str) -> list[Finding]:
    rows = len(next(iter(columns.values())))
    copies = rows - len(np.unique(row_groups(columns, columns)))
    if not copies:
        return []
    keep = ",".join(_fewest(columns, _design_columns(columns, target)))
    text = f"{copies} of {rows} rows are copies of another row in every column"
    return [Finding(check="copies", text=text, mend=f"--best-of {keep}" if keep else "")]


def _design_columns(columns: Columns, target: str) -> list[str]:
    """The setting columns that vary, without what is swept, FLOPs and what only follows from others."""
    kept = [n for n in setting_columns(columns, target) if n.lower() not in (*SWEPT, "train_flops", "flops_per_token")]
    return [name for name in kept if len(codes(columns[name])[1]) > 1]


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


def _sweeps(columns: Columns, target: str) -> list[Finding]:
    swept = [name for name in _present(columns, SWEPT) if len(codes(columns[name])[1]) > 1]
    designs = _design_columns(columns, target)
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


def _repeats(columns: Columns, target: str) -> list[Finding]:
    """Rows that agree in every setting, where no column shows that their seeds differ."""
    settings = setting_columns(columns, target)
    if any(name.lower() in ("seed", "replicate") for name in columns) or run_column(columns) is not None:
        return []
    if target not in columns or not any(name in columns for name in ("tokens", "params_total", "params_active")):
        return []
    label = row_groups(columns, settings)
    distinct = len(np.unique(row_groups({**columns, "row of": label}, ["row of", target])))
    repeats = distinct - len(np.unique(label))
    if not repeats:
        return []
    text = f"{repeats} rows repeat the settings of another one with another loss, and no column names a seed"
    return [Finding(check="repeats", text=text, mend="add a column seed, or whatever else differs between them")]


def _sizes(columns: Columns, target: str) -> list[Finding]:
    found = []
    rows = len(next(iter(columns.values())))
    params = [n for n in columns if n.startswith("params_")]
    for name, what in ((n, "size") for n in params[:1]):
        values = _numbers(columns, name)
        if rows > 2 and values is not None and values.min() == values.max():
            text = f"one {what} only ({name} is {values[0]:g} in every row): no fit shows how the loss depends on it"
            found.append(Finding(check="one size", text=text, mend="hold its exponent with --fix alpha=..."))
    tokens = _numbers(columns, "tokens")
    if params and tokens is not None and rows > 4:
        designs = len(np.unique(row_groups(columns, [n for n in _design_columns(columns, target) if n != "epochs"])))
        if 1 < designs < 5:
            text = f"{rows} rows hold {designs} designs only: laws with more coefficients are not identified"
            found.append(Finding(check="designs", text=text))
    return found


def _texts(columns: Columns, target: str) -> list[Finding]:
    found = []
    for what, names in _TEXTS.items():
        for name in _present(columns, names)[:1]:
            index, distinct = codes(columns[name])
            if len(distinct) < 2 or (columns[name].dtype.kind not in "fiub" and len(distinct) > 0.5 * len(index)):
                continue
            most = distinct[int(np.argmax(np.bincount(index)))]
            value = f"{most:g}" if isinstance(most, float | np.floating) else f"'{most}'"
            text = f"{len(distinct)} {what} (column {name}): their losses in nats per token do not compare"
            found.append(Finding(check="texts", text=text, mend=f'keep one with --where "{quoted(name)} = {value}"'))
    return found


def _diverged(columns: Columns, target: str) -> list[Finding]:
    for name in _present(columns, ("status", "state")):
        failed = np.isin([str(value).lower() for value in columns[name]], _FAILED)
        if failed.any():
            text = (
                f"{int(failed.sum())} of {len(failed)} rows are runs that {name} calls {_first(columns[name], failed)}"
            )
            mend = f"leave them out with --where \"{quoted(name)} != '{_first(columns[name], failed)}'\""
            return [Finding(check="diverged", text=text, mend=mend)]
    values = _numbers(columns, target) if target in columns else None
    if values is None or np.median(values) > HIGH_NATS:
        return []
    off = values > max(UNTRAINED, 2.5 * float(np.median(values)))
    if not off.any():
        return []
    text = f"{int(off.sum())} of {len(values)} rows look diverged ({target} up to {values.max():.3g}, median "
    text += f"{np.median(values):.3g})"
    limit = float(values[~off].max())
    return [Finding(check="diverged", text=text, mend=f'leave them out with --where "{quoted(target)} <= {limit:.6g}"')]


def _first(values: Array, mask: Array) -> str:
    return str(values[int(np.flatnonzero(mask)[0])])


def _reuse(columns: Columns, target: str) -> list[Finding]:
    tokens, unique = (_maybe(columns, name) for name in ("tokens", "unique_tokens"))
    if tokens is None or unique is None or len(tokens) != len(unique):
        return []
    epochs = tokens / np.maximum(unique, 1e-300)
    repeated = epochs > 1 + 1e-6
    if not repeated.any():
        return []
    text = f"{int(repeated.sum())} of {len(tokens)} rows repeat their data (up to {np.nanmax(epochs):.3g} epochs)"
    mend = "--law all fits laws with repeated data (LAW+reuse); a plain law counts repeated tokens as new ones"
    return [Finding(check="reuse", text=text, mend=mend)]


def repeats_data(columns: Columns) -> bool:
    """Whether some rows see tokens more than once."""
    return bool(_reuse(columns, "loss"))


def _maybe(columns: Columns, name: str) -> Array | None:
    try:
        return variable(columns, name)
    except InputError:
        return None


_CHECKS: tuple[Callable[[Columns, str], list[Finding]], ...] = (
    _names, _units, _checkpoints, _copies, _sweeps, _repeats, _sizes, _texts, _diverged, _reuse,
)  # fmt: skip
