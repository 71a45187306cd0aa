"""IsoFLOP slices at several budgets: the optimum at each, N*(C) and D*(C) as power laws, and at a new C."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moelab.errors import InputError
from moelab.fitting.budget_groups import BUDGET, TOLERANCE, budget_groups, compute_notes
from moelab.fitting.checks import check_effort, check_seed
from moelab.fitting.columns import Columns, columns_of, variable
from moelab.fitting.full_fit import FullFit
from moelab.fitting.intervals import interval_of, outside_note
from moelab.fitting.power_law import power_law_draws
from moelab.fitting.slice import Slice, isoflop_slice
from moelab.notebook import Shown, html_table, interval_text, short_repr
from moelab.quantities import format_flops

Array = NDArray[Any]
Ends = dict[str, float | None]
_PARABOLA = ("parabola", "all")


@dataclass(frozen=True, repr=False)
class Budgets(Shown):
    """Slices by budget in FLOPs, from the smallest. `failed` gives the reason for each budget without a slice.

    `exponents` are of the axis (and of the tokens, where the table has them) as powers of the compute; they come from
    the budgets whose optimum is bounded on both sides. `parabola` is the axis's exponent by parabolas alone.
    """

    x: str
    slices: dict[float, Slice]
    failed: dict[float, str]
    tokens: dict[float, Ends]
    exponents: dict[str, Ends]
    parabola: float | None
    _lines: dict[str, Array]
    _parabola_line: Array | None

    def at(self, flops: float) -> dict[str, Ends]:
        """The optimum at another compute, with 80 % intervals. Raises InputError with fewer than two usable budgets."""
        if not self._lines:
            raise InputError(f"isoflop: {self.x} has fewer than two bounded optima, so none at another compute")
        return {name: _ends(np.exp(lines @ np.array([1.0, np.log(flops)]))) for name, lines in self._lines.items()}

    def parabola_at(self, flops: float) -> float | None:
        """The axis's optimum at another compute by the power law through the parabolas' lowest points."""
        line = self._parabola_line
        return None if line is None else float(np.exp(line @ np.array([1.0, np.log(flops)])))

    def bias(self, whole: "FullFit", flops: float | None = None) -> dict[float, float]:
        """How far the parabolas' power law lies from the optimum of a fit to all runs, relative, by FLOPs: at the
        largest budget, at ten times it, and at `flops`."""
        largest = max(self.slices)
        asked = [largest, 10 * largest, *([flops] if flops else [])]
        places = {budget: self.parabola_at(budget) for budget in asked}
        return {budget: place / whole.at(budget) - 1 for budget, place in places.items() if place is not None}

    def notes(self, flops: float | None = None) -> list[str]:
        """Values that lie outside their own intervals, the exponents' and those at a compute."""
        named = {f"the exponent of {name}": ends for name, ends in self.exponents.items()}
        named |= {} if flops is None or not self.exponents else self.at(flops)
        return [note for name, ends in named.items() for note in outside_note(name, ends)]

    def to_dict(self, flops: float | None, whole: "FullFit | None") -> dict[str, Any]:
        """Plain data: what `moelab isoflop --by budget --json` prints."""
        slices = [
            {
                "budget": budget,
                "n_points": one.n_points,
                "optimum": one.optimum,
                "tokens": self.tokens.get(budget),
                "loss_at_optimum": one.loss_at_optimum,
                "edge": one.edge,
                "noise": one.noise,
                "repeats": one.repeats,
                "notes": list(one.notes),
            }
            for budget, one in self.slices.items()
        ]
        return {
            "x": self.x,
            "budgets": slices,
            "failed": {f"{budget:g}": reason for budget, reason in self.failed.items()},
            "exponents": self.exponents,
            "at": None if flops is None else {"train_flops": flops, **self.at(flops)},
            "notes": self.notes(flops),
            "parabola_exponent": self.parabola,
            "full_fit": None if whole is None else {"law": whole.law, "exponent": whole.exponent},
            "parabola_bias": {} if whole is None else {f"{k:g}": v for k, v in self.bias(whole, flops).items()},
        }

    def plot(self) -> Any:
        """All slices with their optima, a colour per budget, as an Altair chart."""
        return plot_budgets(self)

    def rows(self) -> list[tuple[float, int, Ends, Ends | None, str]]:
        """Per budget: FLOPs, runs, the optimum, its tokens, and what is to be known of it."""
        return [
            (flops, found.n_points, found.optimum, self.tokens.get(flops), "; ".join(found.notes))
            for flops, found in self.slices.items()
        ]

    def __repr__(self) -> str:
        return short_repr(
            self,
            x=self.x,
            budgets=len(self.slices),
            **{f"{k}_exponent": interval_text(**v) for k, v in self.exponents.items()},
        )

    def _repr_html_(self) -> str:
        rows = [(format_flops(flops), count, *best.values()) for flops, count, best, _, _ in self.rows()]
        return html_table(["FLOPs", "runs", f"best {self.x}", "p10", "p90"], rows)


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
    group, flops = budget_groups(columns, by, tolerance)
    values, losses, tokens = variable(columns, x), variable(columns, loss), variable(columns, "tokens")
    if values is None or losses is None:
        raise InputError(f"isoflop: the table has no column {x if values is None else loss!r}")
    usable = np.isfinite(values) & np.isfinite(losses)
    slices: dict[float, Slice] = {}
    failed: dict[float, str] = {}
    trained: dict[float, Ends] = {}
    for k in range(int(group.max()) + 1):
        rows = (group == k) & usable
        budget = float(np.exp(np.mean(np.log(flops[group == k]))))
        try:
            found = isoflop_slice(values[rows], losses[rows], name=x, log=log, draws=draws, seed=seed)
        except InputError as error:
            failed[budget] = str(error)
            continue
        mixed = [] if by == BUDGET and by not in columns else compute_notes(_rows_of(columns, rows))
        slices[budget] = replace(found, notes=(*mixed, *found.notes))
        if tokens is not None and np.ptp(tokens[rows]) > 0 and (values[rows] > 0).all():
            trained[budget] = _tokens_at(found.optimum, values[rows], tokens[rows])
    if not slices:
        raise InputError(f"isoflop: no budget has a slice: {next(iter(failed.values()))}")
    return _with_power_laws(x, slices, failed, trained, draws, seed)


def _rows_of(columns: Columns, rows: Array) -> dict[str, Array]:
    return {name: np.asarray(values)[rows] for name, values in columns.items()}


def _tokens_at(optimum: Ends, x: Array, tokens: Array) -> Ends:
    """The tokens of runs of this budget at an optimum, interpolated in logarithms; more of x may mean fewer tokens."""
    order = np.argsort(x, kind="stable")
    log_x, log_d = np.log(x[order]), np.log(tokens[order])
    slope = np.polyfit(log_x, log_d, 1)[0]

    def at(value: float | None) -> float | None:
        if value is None or not value > 0:
            return None
        inside = float(np.clip(np.log(value), log_x[0], log_x[-1]))
        return float(np.exp(np.interp(inside, log_x, log_d) + slope * (np.log(value) - inside)))

    low, high = at(optimum["low"]), at(optimum["high"])
    low, high = (high, low) if slope < 0 else (low, high)
    return {"value": at(optimum["value"]), "low": low, "high": high}


def _with_power_laws(
    x: str, slices: dict[float, Slice], failed: dict[float, str], tokens: dict[float, Ends], draws: int, seed: int
) -> Budgets:
    bounded = {
        flops: found.optimum for flops, found in slices.items() if _bounded(found.optimum) and found.edge is None
    }
    lines = {}
    for name, ends in ((x, bounded), ("tokens", {flops: tokens[flops] for flops in bounded if flops in tokens})):
        if len(ends) >= 2 and all(_bounded(each) and (each["value"] or 0) > 0 for each in ends.values()):
            lines[name] = power_law_draws(ends, max(draws, 1), seed)
    lowest = {
        flops: curve.at
        for flops in bounded
        for curve in slices[flops].curves
        if (curve.name, curve.window) == _PARABOLA and np.isfinite(curve.at)
    }
    logged = len(lowest) >= 2 and all((slices[flops].points[0] > 0).all() for flops in lowest)
    line = np.polyfit(np.log(list(lowest)), list(lowest.values()), 1)[::-1] if logged else None
    return Budgets(
        x=x,
        slices=slices,
        failed=failed,
        tokens=tokens,
        exponents={name: _ends(drawn[:, 1]) for name, drawn in lines.items()},
        parabola=None if line is None else float(line[1]),
        _lines=lines,
        _parabola_line=line,
    )


def _bounded(ends: Ends) -> bool:
    return all(value is not None for value in ends.values())


def _ends(values: Array) -> Ends:
    """The first value with the 10th and 90th percentile of the others."""
    return interval_of(float(values[0]), values[1:])


def plot_budgets(found: Budgets) -> Any:
    """Points, parabolas and optima of every budget."""
    from moelab.report.figures import isoflop

    points, lines, best = [], [], []
    for flops, one in found.slices.items():
        group = f"{format_flops(flops)} FLOPs"
        x, loss = one.points
        logged = bool((x > 0).all())
        grid = np.geomspace(x.min(), x.max(), 81) if logged else np.linspace(x.min(), x.max(), 81)
        points += [{"x": float(a), "loss": float(b), "group": group} for a, b in zip(x, loss, strict=True)]
        lines += [{"x": float(a), "loss": float(b), "group": group} for a, b in zip(grid, one.loss(grid), strict=True)]
        ends = {name: one.optimum[name] for name in ("low", "high")}
        best.append({"x": one.optimum["value"], **ends, "loss": one.loss_at_optimum["value"], "group": group})
    logged = all((one.points[0] > 0).all() for one in found.slices.values())
    return isoflop(points, lines, best, x_title=found.x, log=logged)
