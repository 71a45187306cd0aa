"""The state that a tracker or scheduler gives each run: failed and unfinished ones are no measurements."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from moelab.fitting.columns import Columns
from moelab.fitting.findings import Finding
from moelab.fitting.table_columns import plain, present, quoted

Array = NDArray[Any]
NAMES = ("status", "state", "run_status", "run_state")
_FAILED = (
    "diverged", "crashed", "failed", "failure", "killed", "nan", "error", "oom", "out_of_memory", "aborted",
    "cancelled", "canceled", "preempted", "timeout", "node_fail", "dead",
)  # fmt: skip
_UNFINISHED = ("running", "pending", "queued", "in_progress", "starting", "scheduled", "paused", "incomplete")
_FINISHED = ("finished", "completed", "complete", "done", "success", "succeeded", "ok")
"""What trackers and schedulers call the state of a run."""


def state_findings(columns: Columns, target: str) -> list[Finding]:
    """Rows of runs that a column calls failed, or unfinished, with a condition that leaves out all of them."""
    for name in present(columns, NAMES):
        words = _words(columns, name)
        found = []
        for check, states, what in (("diverged", _FAILED, ""), ("running", _UNFINISHED, ": not finished")):
            rows = np.isin(words, states)
            if rows.any():
                called = " or ".join(dict.fromkeys(str(value) for value in columns[name][rows]))
                text = f"{int(rows.sum())} of {len(rows)} rows are runs that {name} calls {called}{what}"
                found.append((check, text, rows))
        if found:
            mend = _leave_out(name, columns[name], words, np.any([rows for *_, rows in found], axis=0))
            return [Finding(check=check, text=text, mend=mend) for check, text, _ in found]
    return []


def _leave_out(name: str, values: Array, words: Array, rows: Array) -> str:
    """The condition that keeps the finished runs, or that leaves out the states of these rows."""
    kept = list(dict.fromkeys(str(value) for value in values[~rows]))
    if len(kept) == 1 and np.isin(words[~rows], _FINISHED).all():
        return f"leave them out with --where \"{quoted(name)} = '{kept[0]}'\""
    states = ", ".join(f"'{value}'" for value in dict.fromkeys(str(value) for value in values[rows]))
    condition = f"NOT IN ({states})" if "," in states else f"!= {states}"
    return f'leave them out with --where "{quoted(name)} {condition}"'


def unfinished(columns: Columns, rows: int) -> Array:
    """Rows (n,) of runs that a column calls failed or not finished."""
    found = np.zeros(rows, bool)
    for name in present(columns, NAMES):
        found |= np.isin(_words(columns, name), (*_FAILED, *_UNFINISHED))
    return found


def _words(columns: Columns, name: str) -> Array:
    return np.array([plain(str(value)) for value in columns[name]])
