"""Checks of a table before a fit: what would make the fit mean something else than it seems, and what mends it."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moelab.errors import InputError
from moelab.fitting.blanks import filled
from moelab.fitting.columns import Columns, columns_of, finite_numbers, numeric, variable
from moelab.fitting.findings import Finding
from moelab.fitting.table_batches import batch_findings
from moelab.fitting.table_columns import (
    codes,
    plain,
    quoted,
    row_groups,
    suggestions,
)
from moelab.fitting.table_experts import expert_findings
from moelab.fitting.table_flops import flops_findings
from moelab.fitting.table_losses import mixed_losses
from moelab.fitting.table_mixed import numbered
from moelab.fitting.table_outliers import outliers
from moelab.fitting.table_refused import refused_findings
from moelab.fitting.table_rows import (
    copy_findings,
    design_columns,
    measured_runs,
    repeat_findings,
    sweep_findings,
)
from moelab.fitting.table_runs import checkpoint_findings
from moelab.fitting.table_sizes import size_findings
from moelab.fitting.table_states import state_findings, unfinished
from moelab.fitting.table_summaries import summary_findings, summary_rows
from moelab.fitting.table_units import HIGH_NATS, UNTRAINED, unit_findings

Array = NDArray[Any]
_TEXTS = {
    "tokenizers": re.compile(r"tokenizer|tokeni[sz]er_\w+|\w+_tokeni[sz]er|vocab|vocab_size|vocabulary_size"),
    "texts": re.compile(
        r"((train|training|pretrain|pretraining)_)?(dataset|corpus|data|data_?mix|mixture|text|texts|data_source)"
        r"(_(name|hash|mix|version|config))?|manifest_hash"
    ),
    "validation texts": re.compile(
        r"(val|valid|validation|eval|evaluation|test)_?(set|data|dataset|corpus|text|split|domain|task)(_(name|hash))?"
        r"|split|loss_on"
    ),
}
"""What texts and tokenizers are called, in lower case with underscores."""
TOGETHER, RISING, FEWEST_ROWS = 0.999, 0.5, 8
"""Correlation of log parameters and log tokens beyond which they are one variable; rank correlation of a loss with
compute beyond which it rises; rows from which both are asked."""
_LISTED = 20
"""Losses that a condition lists."""


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
    scaled = any(f.check == "units" and f.text.startswith(("tokens:", "unique_tokens:")) for f in found)
    return [f for f in found if not (scaled and f.check == "reuse")]  # epochs of two units are none


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


def _sizes(columns: Columns, target: str) -> list[Finding]:
    found = []
    rows = len(next(iter(columns.values())))
    params = [n for n in columns if n.startswith("params_")]
    for name, what in ((n, "size") for n in params[:1]):
        values = finite_numbers(columns, name)
        if rows > 2 and values is not None and values.min() == values.max():
            text = f"one {what} only ({name} is {values[0]:g} in every row): no fit shows how the loss depends on it"
            found.append(Finding(check="one size", text=text, mend="hold its exponent with --fix alpha=..."))
    tokens = finite_numbers(columns, "tokens")
    if params and tokens is not None and rows > 4:
        designs = len(np.unique(row_groups(columns, [n for n in design_columns(columns, target) if n != "epochs"])))
        if 1 < designs < 5:
            text = f"{rows} rows hold {designs} designs only: laws with more coefficients are not identified"
            found.append(Finding(check="designs", text=text))
    return found


def _together(columns: Columns, target: str) -> list[Finding]:
    """Tokens that are a power of the parameters throughout, and losses that rise with compute."""
    found = []
    names = ("params_total", "params_active", "params_non_embedding")
    name = next((n for n in names if n in columns), None)
    params, tokens = (None if n is None else finite_numbers(columns, n) for n in (name, "tokens"))
    if params is None or tokens is None or len(params) != len(tokens) or len(params) < FEWEST_ROWS:
        return []
    if not ((params > 0).all() and (tokens > 0).all() and np.ptp(params) > 0):
        return []
    log_n, log_d = np.log(params), np.log(tokens)
    if np.ptp(log_d) > 0.1 and np.corrcoef(log_n, log_d)[0, 1] > TOGETHER:
        ratio = np.median(tokens / params)
        text = f"tokens follow {name} (about {ratio:.3g} per parameter): no fit separates what size and data do"
        found.append(Finding(check="one ratio", text=text, mend="hold an exponent with --fix beta=..."))
    values = finite_numbers(columns, target) if target in columns else None
    rises = np.ptp(log_n + log_d) > 0.1  # at one compute, only rounding orders the runs
    if rises and values is not None and len(values) == len(params) and np.ptp(values) > 0:
        compute, losses = (np.argsort(np.argsort(each, kind="stable")) for each in (log_n + log_d, values))
        if np.corrcoef(compute, losses)[0, 1] > RISING:
            text = f"{target} rises with parameters and tokens: a loss falls; is it an accuracy, or the order of rows?"
            found.append(Finding(check="rising", text=text))
    return found


def _texts(columns: Columns, target: str) -> list[Finding]:
    found = []
    for what, pattern in _TEXTS.items():
        for name in [each for each in columns if pattern.fullmatch(plain(each))][:1]:
            index, distinct = codes(columns[name])
            if len(distinct) < 2 or (columns[name].dtype.kind not in "fiub" and len(distinct) > 0.5 * len(index)):
                continue
            most = distinct[int(np.argmax(np.bincount(index)))]
            value = f"{most:g}" if isinstance(most, float | np.floating) else f"'{most}'"
            text = f"{len(distinct)} {what} (column {name}): their losses in nats per token do not compare"
            found.append(Finding(check="texts", text=text, mend=f'keep one with --where "{quoted(name)} = {value}"'))
    return found


def _diverged(columns: Columns, target: str) -> list[Finding]:
    values = finite_numbers(columns, target) if target in columns else None
    if values is None or len(values) < len(columns[target]) or np.median(values) > HIGH_NATS:
        return []
    high = values > max(UNTRAINED, 2.5 * float(np.median(values)))
    off = high | outliers({**columns, target: np.where(high, np.nan, values)}, target)
    off &= ~unfinished(columns, len(values))  # those are noted by their state
    off &= ~summary_rows(columns)[0]  # those are noted as such
    off &= ~_untrained(columns, len(values))  # those are noted by their tokens
    if not off.any():
        return []
    off &= ~mixed_losses(columns, target)[0]  # those are noted as in another unit
    if not off.any():
        return []
    least, most = f"{values[off].min():.4g}", f"{values[off].max():.4g}"
    span = least if least == most else f"{least} to {most}"
    text = f"{int(off.sum())} of {len(values)} rows look diverged ({numbered(off)}: {target} {span}, median "
    text += f"{np.median(values):.3g})"
    kept = _condition(values, off)
    return [Finding(check="diverged", text=text, mend=f'leave them out with --where "{quoted(target)} {kept}"')]


def _untrained(columns: Columns, rows: int) -> Array:
    """Rows (n,) measured before training, at no tokens."""
    tokens = numeric(columns, "tokens")
    return np.zeros(rows, bool) if tokens is None or len(tokens) != rows else np.asarray(tokens == 0)


def _condition(values: Array, off: Array) -> str:
    """What holds for the values of the other rows: below a limit, or none of the listed."""
    least, most = float(values[off].min()), float(values[~off].max())
    for digits in (2, 3, 4, 6):
        limit = float(f"{(least + most) / 2:.{digits}g}")
        if most < limit < least:
            return f"< {limit:g}"
    return f"NOT IN ({', '.join(repr(float(value)) for value in values[off][:_LISTED])})"


def _reuse(columns: Columns, target: str) -> list[Finding]:
    tokens, unique = (numeric(columns, name) for name in ("tokens", "unique_tokens"))
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


def _loss_units(columns: Columns, target: str) -> list[Finding]:
    rows, found = mixed_losses(columns, target)
    return [] if found and _of_other_texts(columns, rows) else found


def _of_other_texts(columns: Columns, rows: Array) -> bool:
    """Whether a column of texts or tokenizers separates these rows from the others: their losses then differ for that
    reason, which is noted by itself."""
    for name in columns:
        if any(pattern.fullmatch(plain(name)) for pattern in _TEXTS.values()):
            index, distinct = codes(columns[name])
            if len(distinct) > 1 and not np.isin(index[rows], index[~rows]).any():
                return True
    return False


_CHECKS: tuple[Callable[[Columns, str], list[Finding]], ...] = (
    refused_findings, _names, expert_findings, size_findings, unit_findings, _loss_units, flops_findings,
    batch_findings, summary_findings, checkpoint_findings, copy_findings, sweep_findings, repeat_findings, _sizes,
    _together, _texts, state_findings, _diverged, _reuse,
)  # fmt: skip
