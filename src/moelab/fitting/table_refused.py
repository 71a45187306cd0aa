"""What a fit refuses: cells that are no numbers, values out of range, a table without runs, loss or sizes."""

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moelab.errors import InputError
from moelab.fitting.checks import ROUNDING, check_variable, numbers
from moelab.fitting.columns import Columns
from moelab.fitting.findings import Finding
from moelab.fitting.table_columns import known_names, losses_of, quoted, suggestions
from moelab.laws import all_laws
from moelab.laws.law import COUNTS, RATES, SHARES
from moelab.printable import short

Array = NDArray[Any]
_CHART = re.compile(r".+ - \S*(loss|perplexity|ppl|bpb)\S*$", re.IGNORECASE)
_SHOWN, _COLUMNS = 6, 12
"""Losses, and columns, that a message lists."""
_VALUES, MOST_MEASURES = ("value", "values", "result", "score"), 50
"""Names of a column with one measure per row, and how many measures such a table may have."""
_ALWAYS = ("tokens", "params_total", "params_active", "params_non_embedding")
"""Columns that every run has: a blank there is refused by the laws that read them."""
_NON_EMBEDDING = ("params_active_non_embedding", "params_non_embedding")


def refused_findings(columns: Columns, target: str) -> list[Finding]:
    """What `moelab fit` would end with, for any law."""
    rows = len(next(iter(columns.values()), ()))
    found = [
        *_cells(columns, target),
        *_losses(columns, target),
        *_ranges(columns, target),
        *active_above_total(columns),
        *_absent(columns, target),
    ]
    if rows < 2:
        found.append(
            Finding(check="rows", text=f"the table has {rows} row{'' if rows == 1 else 's'}: no fit is possible")
        )
    return found


def _cells(columns: Columns, target: str) -> list[Finding]:
    """Text in columns that laws read as numbers."""
    found = []
    for name in columns:
        if name != target and name not in known_names():
            continue
        try:
            numbers(columns[name], name)
        except InputError as error:
            found.append(Finding(check="cells", text=str(error), mend=_without_words(name, columns[name])))
    return found


def _without_words(name: str, values: Array) -> str:
    """The condition that leaves out the rows of a few words (OOM, diverged) in a column of numbers."""
    texts = [str(value) for value in values]
    words = list(dict.fromkeys(text for text in texts if not _is_number(text)))
    if (
        not 0 < len(words) <= _SHOWN
        or 2 * sum(text in words for text in texts) > len(texts)
        or any(map(_digits, words))
    ):
        return ""
    listed = ", ".join("'" + word.replace("'", "''") + "'" for word in words)
    condition = f"NOT IN ({listed})" if len(words) > 1 else f"!= {listed}"
    return f'leave them out with --where "{quoted(name)} {condition}"'


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return text.strip().lower() in ("", "none")
    return True


def _digits(text: str) -> bool:
    return any(character.isdigit() for character in text)


def _losses(columns: Columns, target: str) -> list[Finding]:
    try:
        values = numbers(columns[target], target)
    except (KeyError, InputError):
        return []
    found = []
    for wrong, word, condition in (
        (np.isposinf(values), "finite", f"< {_above(values)}"),
        (np.isnan(values), "finite", "> 0"),
        (values <= 0, "positive", "> 0"),
    ):
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            text = f"{target}: must be {word}; {int(wrong.sum())} of {len(values)} rows are not, first row {row + 1} "
            text += f"({values[row]:g})"
            mend = f'drop them with --where "{quoted(target)} {condition}"'
            found.append(Finding(check="values", text=text, mend=mend))
    return found


def _ranges(columns: Columns, target: str) -> list[Finding]:
    """Variables of laws outside the range that they have: a share above 1, a size that is not positive."""
    found = []
    variables = {*SHARES, *RATES, *COUNTS, *(name for law in all_laws().values() for name in law.variables)}
    for name in columns:
        if name == target or name not in variables:
            continue
        try:
            values = numbers(columns[name], name)
        except InputError:
            continue
        known = values[np.isfinite(values)]
        if not len(known):
            continue
        blank = name in _ALWAYS and 0 < len(known) < len(values)
        try:
            check_variable(name, values if blank else known)
        except InputError as error:
            found.append(Finding(check="values", text=str(error), mend=_mend(name, known)))
    return found


def _mend(name: str, values: Array) -> str:
    """A share in per cent is divided; other rows out of range are dropped."""
    column = quoted(name)
    if name in SHARES or name in RATES:
        percent = bool(np.all((values >= 0) & (values <= 100)) and np.median(values) > 1)
        most = "< 1" if name in SHARES else "<= 1"
        return f"--let '{name} = {column} / 100'" if percent else f'drop them with --where "{column} {most}"'
    return f'drop them with --where "{column} {">= 1" if name in COUNTS else "> 0"}"'


def active_above_total(columns: Columns) -> list[Finding]:
    """More experts in use than there are, more active than total parameters."""
    found = []
    for active, total in (("top_k", "n_experts"), ("params_active", "params_total"), _NON_EMBEDDING):
        if active not in columns or total not in columns:
            continue
        try:
            used, there = numbers(columns[active], active), numbers(columns[total], total)
        except InputError:
            continue
        off = used > (1 + ROUNDING) * there
        if off.any():
            row = int(np.flatnonzero(off)[0])
            rows = f" in {int(off.sum())} of {len(off)} rows, first row {row + 1}" if len(off) > 1 else ""
            text = f"{active} is above {total}{rows} "
            found.append(Finding(check="values", text=text + f"({used[row]:g} of {there[row]:g}): is one misnamed?"))
    return found


def _above(values: Array) -> str:
    """A power of ten above every finite value."""
    finite = values[np.isfinite(values)]
    return f"{10.0 ** np.ceil(np.log10(max(float(finite.max()), 1.0) * 1.001)):g}" if len(finite) else "1e6"


def _absent(columns: Columns, target: str) -> list[Finding]:
    """No loss, or nothing that a law of the loss reads."""
    near = suggestions(columns)
    charts = [name for name in columns if _CHART.match(name)]
    if target not in columns and len(charts) > 1:
        text = (
            f"{len(charts)} columns are one run's chart each (such as {short(charts[0])}): a fit reads one row per run"
        )
        return [
            Finding(check="names", text=text, mend="export the table of runs, with their settings and the last loss")
        ]
    found = []
    if target not in columns and (target != "loss" or "loss" not in near):
        text = f"no column {target!r} to fit; its columns: {_listed(columns)}"
        found.append(Finding(check="names", text=text, mend=_which_loss(columns)))
    if not set(columns) & known_names() and not set(near) - {"loss"}:
        text = f"no column gives parameters, tokens or experts; its columns: {_listed(columns)}"
        found.append(Finding(check="names", text=text, mend="map one with --let 'params_total = ...'"))
    return found


def _which_loss(columns: Columns) -> str:
    """The options that fit a column that looks like a loss, or the losses of a table of one measure per row."""
    names = losses_of(columns)
    if names:
        return "fit one: " + " or ".join(f"--loss {quoted(name)}" for name in names[:_SHOWN])
    value = next((name for name in columns if name.lower() in _VALUES), None)
    for name in columns if value is not None else ():
        if columns[name].dtype.kind in "fiub":
            continue
        measures = list(dict.fromkeys(str(each) for each in columns[name]))
        if len(measures) <= MOST_MEASURES and (losses := losses_of(measures)):
            condition = f"{quoted(name)} = '{losses[0]}'"
            return f'each row holds one measure: --where "{condition}" --loss {quoted(str(value))}'
    return "fit one with --loss NAME"


def _listed(columns: Columns) -> str:
    names = [short(name)[1:-1] for name in columns]
    more = len(names) - _COLUMNS
    return ", ".join(names[:_COLUMNS]) + (f" and {more} more" if more > 0 else "")
