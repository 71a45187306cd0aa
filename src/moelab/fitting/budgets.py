"""IsoFLOP slices at several budgets: the optimum at each, N*(C) and D*(C) as power laws, and at a new C."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moelab.errors import InputError
from moelab.fitting.budget_groups import BUDGET, TOLERANCE, budget_groups, compute_notes
from moelab.fitting.budget_lines import Ends, Key, once, power_laws, tokens_at
from moelab.fitting.checks import check_effort, check_seed
from moelab.fitting.columns import Columns, columns_of, variable
from moelab.fitting.full_fit import FullFit
from moelab.fitting.intervals import interval_of, outside_note
from moelab.fitting.slice import Slice, isoflop_slice
from moelab.fitting.slice_plots import plot_slices
from moelab.notebook import Shown, html_table, interval_text, short_repr
from moelab.quantities import format_flops

Array = NDArray[Any]


@dataclass(frozen=True, repr=False)
class Budgets(Shown):
    """Slices by budget, from the smallest: by its FLOPs, or by its value of the column `by`, where `flops` gives the
    compute. `failed` gives the reason for each budget without a slice.

    `exponents` are of the axis (and of the tokens, where the table has them) as powers of the compute; they come from
    the budgets of one compute whose optimum is bounded on both sides. `parabola` is the axis's exponent by parabolas
    alone.
    """

    x: str
    by: str
    slices: dict[Key, Slice]
    flops: dict[Key, float]
    failed: dict[Key, str]
    tokens: dict[Key, Ends]
    exponents: dict[str, Ends]
    parabola: float | None
    _lines: dict[str, Array]
    _parabola_line: Array | None

    def label(self, key: Key) -> str:
        """How text calls a group: 1e18 FLOPs, or tokens 4e9."""
        return f"{self.by} {key}" if isinstance(key, str) else f"{format_flops(key)} FLOPs"

    @property
    def heading(self) -> str:
        """What parts the groups: FLOPs, or the column."""
        return self.by if any(isinstance(key, str) for key in (*self.slices, *self.failed)) else "FLOPs"

    def at(self, flops: float) -> dict[str, Ends]:
        """The optimum at another compute, with 80 % intervals. Raises InputError with fewer than two usable budgets."""
        if not self._lines:
            raise InputError(f"isoflop: {self.x} has fewer than two bounded optima, so none at another compute")
        return {name: _ends(np.exp(lines @ np.array([1.0, np.log(flops)]))) for name, lines in self._lines.items()}

    def parabola_at(self, flops: float) -> float | None:
        """The axis's optimum at another compute by the power law through the parabolas' lowest points."""
        line = self._parabola_line
        return None if line is None else float(np.exp(line @ np.array([1.0, np.log(flops)])))

    def bias(self, whole: "FullFit", flops: float | Sequence[float] | None = None) -> dict[float, float]:
        """How far the parabolas' power law lies from the optimum of a fit to all runs, relative, by FLOPs: at the
        largest budget, at ten times it, and at `flops`."""
        largest = max(self.flops[key] for key in self.slices)
        asked = once([*_each(flops), largest, 10 * largest])
        places = {budget: self.parabola_at(budget) for budget in sorted(asked)}
        return {budget: place / whole.at(budget) - 1 for budget, place in places.items() if place is not None}

    def notes(self, flops: float | Sequence[float] | None = None) -> list[str]:
        """Values that lie outside their own intervals, the exponents' and those at a compute."""
        named = {f"the exponent of {name}": ends for name, ends in self.exponents.items()}
        for budget in _each(flops) if self.exponents else ():
            named |= {f"{name} at {format_flops(budget)} FLOPs": ends for name, ends in self.at(budget).items()}
        return [note for name, ends in named.items() for note in outside_note(name, ends)]

    def slice_notes(self) -> list[str]:
        """The notes on the slices, each once with the groups that it is of."""
        found: dict[str, list[Key]] = {}
        for key, one in self.slices.items():
            for note in one.notes:
                found.setdefault(note, []).append(key)
        every = len(self.slices) > 1
        return [
            f"at {'each budget' if every and len(keys) == len(self.slices) else _listed(self, keys)}: {note}"
            for note, keys in found.items()
        ]

    def to_dict(self, flops: float | Sequence[float] | None, whole: "FullFit | None") -> dict[str, Any]:
        """Plain data: what `moelab isoflop --by budget --json` prints. `at` is the first compute asked."""
        slices = [
            {
                "budget": self.flops[key],
                "group": key if isinstance(key, str) else None,
                "n_points": one.n_points,
                "optimum": one.optimum,
                "tokens": self.tokens.get(key),
                "loss_at_optimum": one.loss_at_optimum,
                "edge": one.edge,
                "noise": one.noise,
                "repeats": one.repeats,
                "notes": list(one.notes),
            }
            for key, one in self.slices.items()
        ]
        at = [{"train_flops": budget, **self.at(budget)} for budget in _each(flops)]
        return {
            "x": self.x,
            "by": self.by,
            "budgets": slices,
            "failed": {key if isinstance(key, str) else f"{key:g}": reason for key, reason in self.failed.items()},
            "exponents": self.exponents,
            "at": at[0] if at else None,
            "at_each": at,
            "notes": self.notes(flops),
            "parabola_exponent": self.parabola,
            "full_fit": None if whole is None else {"law": whole.law, "exponent": whole.exponent},
            "parabola_bias": {} if whole is None else {f"{k:g}": v for k, v in self.bias(whole, flops).items()},
        }

    def plot(self) -> Any:
        """All slices with their optima, a colour per budget, as an Altair chart."""
        log = all((one.points[0] > 0).all() for one in self.slices.values())
        return plot_slices([one.drawn(self.label(key)) for key, one in self.slices.items()], self.x, log)

    def rows(self) -> list[tuple[Key, int, Ends, Ends | None, str]]:
        """Per budget: its FLOPs or name, runs, the optimum, its tokens, and what is to be known of it."""
        return [
            (key, found.n_points, found.optimum, self.tokens.get(key), "; ".join(found.notes))
            for key, found in self.slices.items()
        ]

    def __repr__(self) -> str:
        return short_repr(
            self,
            x=self.x,
            budgets=len(self.slices),
            **{f"{k}_exponent": interval_text(**v) for k, v in self.exponents.items()},
        )

    def _repr_html_(self) -> str:
        rows = [(shown_key(key), count, *best.values()) for key, count, best, _, _ in self.rows()]
        return html_table([self.heading, "runs", f"best {self.x}", "p10", "p90"], rows)


def shown_key(key: Key) -> str:
    """A group's FLOPs or name as a table's cell."""
    return key if isinstance(key, str) else format_flops(key)


def _each(flops: float | Sequence[float] | None) -> list[float]:
    return [] if flops is None else [float(flops)] if isinstance(flops, int | float) else [float(f) for f in flops]


def _listed(found: Budgets, keys: list[Key]) -> str:
    names = [shown_key(key) for key in keys]
    joined = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
    return f"{found.by} {joined}" if isinstance(keys[0], str) else f"{joined} FLOPs"


def isoflop_budgets(
    table: Any,
    x: str,
    *,
    loss: str = "loss",
    by: str = BUDGET,
    tolerance: float = TOLERANCE,
    log: bool | None = None,
    draws: int = 1000,
    seed: int = 0,
) -> Budgets:
    """A slice per budget of a table, and how the optimum grows with compute.

    Args:
        table: The runs, as `moelab.fit` takes them.
        x: The axis, a column or what follows from others.
        loss: The column of the loss.
        by: A column that names the budgets; `budget` finds them from the FLOPs where the table has no such column.
        tolerance: Relative gap of FLOPs from which another budget begins.
        log, draws, seed: As in `isoflop_slice`.

    Raises InputError for missing columns and where no budget has a slice.
    """
    check_effort("draws", draws)
    check_seed(seed)
    columns = columns_of(table)
    groups = budget_groups(columns, by, tolerance)
    values, losses, tokens = variable(columns, x), variable(columns, loss), variable(columns, "tokens")
    if values is None or losses is None:
        raise InputError(f"isoflop: the table has no column {x if values is None else loss!r}")
    usable = np.isfinite(values) & np.isfinite(losses)
    slices: dict[Key, Slice] = {}
    failed: dict[Key, str] = {}
    trained: dict[Key, Ends] = {}
    compute: dict[Key, float] = {}
    mixed: set[Key] = set()
    for k in range(int(groups.index.max()) + 1):
        rows = (groups.index == k) & usable
        budget = float(np.exp(np.mean(np.log(groups.flops[groups.index == k]))))
        key: Key = groups.names[k] if groups.names else budget
        compute[key] = budget
        try:
            found = isoflop_slice(values[rows], losses[rows], name=x, log=log, draws=draws, seed=seed)
        except InputError as error:
            failed[key] = str(error)
            continue
        notes = [] if by == BUDGET and by not in columns else compute_notes(_rows_of(columns, rows))
        mixed |= {key} if notes else set()
        slices[key] = replace(found, notes=(*notes, *found.notes))
        if tokens is not None and np.ptp(tokens[rows]) > 0 and (values[rows] > 0).all():
            trained[key] = tokens_at(found.optimum, values[rows], tokens[rows])
    if not slices:
        raise InputError(f"isoflop: no budget has a slice: {next(iter(failed.values()))}")
    lines, line = power_laws(x, {k: s for k, s in slices.items() if k not in mixed}, compute, trained, draws, seed)
    return Budgets(
        x=x,
        by=by,
        slices=slices,
        flops=compute,
        failed=failed,
        tokens=trained,
        exponents={name: _ends(drawn[:, 1]) for name, drawn in lines.items()},
        parabola=None if line is None else float(line[1]),
        _lines=lines,
        _parabola_line=line,
    )


def _rows_of(columns: Columns, rows: Array) -> dict[str, Array]:
    return {name: np.asarray(values)[rows] for name, values in columns.items()}


def _ends(values: Array) -> Ends:
    """The first value with the 10th and 90th percentile of the others."""
    return interval_of(float(values[0]), values[1:])
