"""A fitted law: coefficients, bootstrap draws, the range it was fitted on, and what it predicts with what interval."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moelab.errors import InputError
from moelab.fitting.columns import columns_of
from moelab.fitting.designs import design_variables, predicted_value
from moelab.laws import Conversion, Law
from moelab.notebook import Shown, html_table, interval_text, short_repr
from moelab.quantities import format_outside

Array = NDArray[Any]
LEVEL = 0.8
_BLOCK = 2_000_000
MOST_ROWS = 20
"""Designs that a notebook shows of many."""


@dataclass(frozen=True, repr=False)
class Prediction(Shown):
    """One number per design. `low` and `high` are the 10th and 90th percentile (NaN without bootstrap draws);
    `extrapolation` is the largest log10 distance outside the fitted range."""

    value: Array
    low: Array
    high: Array
    extrapolation: Array

    def __repr__(self) -> str:
        shown = [interval_text(*ends) for ends in self._ends(3)]
        return short_repr(self, designs=len(self.value), value="; ".join(shown) + ("; ..." * (len(self.value) > 3)))

    def _repr_html_(self) -> str:
        rows = [
            (*ends, format_outside(far))
            for ends, far in zip(self._ends(), self.extrapolation[:MOST_ROWS].tolist(), strict=True)
        ]
        more = f"{len(self.value):,} designs; the first {MOST_ROWS} are shown" if len(self.value) > MOST_ROWS else ""
        return html_table(["value", "p10", "p90", "outside the fitted range"], rows, note=more)

    def _ends(self, most: int = MOST_ROWS) -> list[tuple[float, float, float]]:
        arrays = (self.value, self.low, self.high)
        return list(zip(*(array[:most].tolist() for array in arrays), strict=True))


@dataclass(frozen=True, kw_only=True, repr=False)
class Holdout(Shown):
    """How well runs that the fit did not see were predicted. `rows` has one entry per held-out run."""

    n_runs: int
    mean_abs_rel: float
    bias_rel: float
    coverage_80: float | None
    max_extrapolation: float | None
    by: str
    rows: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class FittedLaw(Shown):
    """What `fit` returns. `draws` is (B, number of coefficients), in the law's order; `ranges` is this table's."""

    law: Law
    n_runs: int
    coefficients: dict[str, float]
    draws: Array
    ranges: dict[str, tuple[float, float]]
    objective: float
    objective_kind: str
    starts: int
    starts_agreeing: int
    at_bound: tuple[str, ...]
    condition: float
    held: dict[str, float]
    in_sample: dict[str, float]
    measured: Array
    predicted: Array
    labels: tuple[str, ...]
    kinds: tuple[str, ...]
    free: int
    cpu_seconds: float
    notes: tuple[str, ...] = ()
    seed_noise: dict[str, float] | None = None
    interval_rel: float | None = None
    holdout: Holdout | None = None
    diagnosis: tuple[str, ...] = ()

    @property
    def residuals(self) -> Array:
        """log measured - log predicted, widened for the coefficients that were fitted to them."""
        spare = max(self.n_runs - self.free, 1)
        return (np.log(self.measured) - np.log(self.predicted)) * np.sqrt(self.n_runs / spare)

    def interval(self, name: str) -> dict[str, float | None]:
        """A coefficient's value with its 10th and 90th percentile."""
        low, high = self._bounds(self.draws[:, self.law.coefficients.index(name)]) if len(self.draws) else (None, None)
        return {"value": self.coefficients[name], "low": low, "high": high}

    def predict(self, table: Any = None, *, noise: bool = False, **values: Any) -> Prediction:
        """Predict for a table (or mapping) of the law's variables, or for variables given by name.

        The interval is that of the law itself; with `noise`, that of one more measured run.
        Raises InputError for missing variables and for values that none can have.
        """
        columns = {**(columns_of(table) if table is not None else {}), **columns_of(values)}
        numbers = design_variables(columns, self.law, tuple(self.ranges))
        value = predicted_value(self.law, self.coefficients, numbers)
        low, high = self._spread(numbers, noise)
        return Prediction(value, low, high, self.law.extrapolation(numbers, self.ranges))

    def variables_of(self, model: Any, tokens: Any, seq_len: Any = 4096, unique_tokens: Any = None) -> Conversion:
        """Architectures in this law's variables; the limits of the published coefficients do not apply."""
        return self.law.variables_of(model, tokens, seq_len, unique_tokens, published=False)

    def predict_model(self, model: Any, tokens: Any, seq_len: Any = 4096, *, noise: bool = False) -> Prediction:
        """Predict for a `ModelConfig` (or a lattice of shapes) trained on `tokens`."""
        return self.predict(self.variables_of(model, tokens, seq_len).variables, noise=noise)

    def draw_losses(self, numbers: Mapping[str, Array]) -> Array:
        """(B, n): the prediction of every bootstrap draw."""
        batch = {name: self.draws[:, k, None] for k, name in enumerate(self.law.coefficients)}
        with np.errstate(all="ignore"):
            values = self.law.loss(batch, numbers)
        return np.broadcast_to(values, (len(self.draws), np.size(next(iter(numbers.values())))))

    def _spread(self, numbers: dict[str, Array], noise: bool) -> tuple[Array, Array]:
        size = len(next(iter(numbers.values())))
        low, high = np.full(size, np.nan), np.full(size, np.nan)
        if not len(self.draws):
            return low, high
        rng = np.random.default_rng(0)
        step = max(1, _BLOCK // len(self.draws))
        for i in range(0, size, step):
            block = self.draw_losses({name: values[i : i + step] for name, values in numbers.items()})
            if noise:
                block = block * np.exp(rng.choice(self.residuals, block.shape))
            low[i : i + step], high[i : i + step] = np.nanquantile(block, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
        return low, high

    @staticmethod
    def _bounds(draws: Array) -> tuple[float, float]:
        low, high = np.nanquantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        return float(low), float(high)

    def plot(self) -> Any:
        """Predicted against measured loss with residuals, held-out runs marked, as an Altair chart."""
        return plot_fits([self])

    def plot_holdout(self) -> Any:
        """Error of each held-out run by how far beyond the fitted ones it lies, as an Altair chart."""
        return plot_holdout([self])

    def mean_interval(self, numbers: Mapping[str, Array]) -> float | None:
        """Mean half-width of the law's own 80 % interval over some runs, relative to the prediction."""
        if not len(self.draws):
            return None
        low, high = self._spread(dict(numbers), noise=False)
        return float(np.mean((high - low) / 2 / self.law.loss(self.coefficients, numbers)))

    def coefficient_rows(self) -> list[tuple[str, float | None, float | None, float | None, str]]:
        """Per coefficient: name, value, p10, p90, and whether it was held or lies at a bound."""
        rows = []
        for name in self.law.coefficients:
            ends = self.interval(name)
            marks = {"held": name in self.held, "at a bound": name in self.at_bound}
            mark = ", ".join(word for word, holds in marks.items() if holds)
            rows.append((name, ends["value"], ends["low"], ends["high"], mark))
        return rows

    def __repr__(self) -> str:
        held = "none" if self.holdout is None else f"{self.holdout.mean_abs_rel:.2%} of {self.holdout.n_runs} runs"
        return short_repr(
            self,
            law=self.law.id,
            n_runs=self.n_runs,
            in_sample_error=f"{self.in_sample['mean_abs_rel']:.2%}",
            held_out_error=held,
            bootstrap=len(self.draws),
            coefficients=", ".join(f"{name} {value:.4g}" for name, value in self.coefficients.items()),
        )

    def _repr_html_(self) -> str:
        head = [f"{self.law.id}, {self.n_runs} runs", "value", "p10", "p90", ""]
        return html_table(
            head, self.coefficient_rows(), title=self.law.form, note="; ".join((*self.notes, *self.diagnosis))
        )

    def with_holdout(self, holdout: Holdout | None) -> "FittedLaw":
        """The same fit with its held-out score."""
        return replace(self, holdout=holdout)


def fit_rows(fitted: FittedLaw) -> list[dict[str, Any]]:
    """Every run as the fit on all runs sees it; held-out ones as the fit without them predicted them."""
    held = {row["row"]: row for row in fitted.holdout.rows} if fitted.holdout else {}
    rows = []
    for i, (measured, predicted) in enumerate(zip(fitted.measured, fitted.predicted, strict=True)):
        seen = {"measured": float(measured), "predicted": float(predicted), "low": None, "high": None}
        drawn = {name: held[i][name] for name in seen} if i in held else seen
        about = {"law": fitted.law.id, "label": fitted.labels[i], "kind": fitted.kinds[i], "held_out": i in held}
        rows.append({**about, **drawn})
    return rows


def holdout_rows(fitted: FittedLaw) -> list[dict[str, Any]]:
    """Error of each held-out run against its compute, as a multiple of the largest fitted run's."""
    held = fitted.holdout.rows if fitted.holdout else []
    return [
        {
            "law": fitted.law.id,
            "extrapolation": row["factor"],
            "error_rel": row["predicted"] / row["measured"] - 1,
            "covered": row["low"] is not None and row["low"] <= row["measured"] <= row["high"],
        }
        for row in held
        if row["factor"] is not None
    ]


def plot_fits(fits: Sequence[FittedLaw]) -> Any:
    """Predicted against measured, a panel per law."""
    from moelab.report.figures import predicted_measured

    return predicted_measured([row for fitted in fits for row in fit_rows(fitted)])


def plot_holdout(fits: Sequence[FittedLaw]) -> Any:
    """Held-out errors against the extrapolation factor. Raises InputError where nothing was held out."""
    from moelab.report.figures import holdout_error

    rows = [row for fitted in fits for row in holdout_rows(fitted)]
    if not rows:
        raise InputError("plot: no runs were held out in the order of their compute")
    return holdout_error(rows)
