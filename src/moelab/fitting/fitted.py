"""A fitted law: coefficients, bootstrap draws, the range it was fitted on, and what it predicts with what interval."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moelab.errors import InputError
from moelab.fitting.carried_notes import carried_notes, unit_notes
from moelab.fitting.coefficients import LEVEL, coefficient_ends, coefficient_note
from moelab.fitting.columns import columns_of
from moelab.fitting.designs import design_variables, predicted_value
from moelab.fitting.fitted_optimum import FittedOptimum, fitted_optimum
from moelab.fitting.influence import Influence
from moelab.fitting.prediction import Holdout, Prediction
from moelab.fitting.residual_tests import ResidualTest
from moelab.fitting.widening import AS_DRAWN, Widening
from moelab.laws import Conversion, Law
from moelab.notebook import Shown, html_table, short_repr

Array = NDArray[Any]
_BLOCK = 2_000_000
ALONE = 0.999
"""Share of a coefficient's variance that a prior left, from which the runs hold nothing of it."""


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class FittedLaw(Shown):
    """What `fit` returns. `draws` is (B, number of coefficients), in the law's order; `ranges` is this table's, and
    `most_flops` the training FLOPs of its largest run (None where the table does not give them). `weights` are those of
    the runs, None where all weigh the same.

    `prior` is None, or the prior's name, hash, and per coefficient the share of its variance that the prior left.
    `widening` is how intervals of predictions come from the draws."""

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
    unidentified: tuple[str, ...] = ()
    residual_tests: tuple[ResidualTest, ...] = ()
    influence: Influence | None = None
    prior: Mapping[str, Any] | None = None
    most_flops: float | None = None
    weights: Array | None = None
    widening: Widening = AS_DRAWN

    @property
    def residuals(self) -> Array:
        """log measured - log predicted, widened for the coefficients that were fitted to them."""
        spare = max(self.n_runs - self.free, 1)
        return (np.log(self.measured) - np.log(self.predicted)) * np.sqrt(self.n_runs / spare)

    @property
    def residual_spread(self) -> float:
        """Root of the mean square of the residuals, by the runs' weights."""
        return float(np.sqrt(np.average(np.square(self.residuals), weights=self.weights)))

    def draw_residuals(self, rng: np.random.Generator, shape: int | tuple[int, ...]) -> Array:
        """Residuals drawn by the runs' weights: what one more run like those that count most is off by."""
        share = None if self.weights is None else self.weights / self.weights.sum()
        return np.asarray(rng.choice(self.residuals, shape, p=share))

    def interval(self, name: str) -> dict[str, float | None]:
        """A coefficient's value with its 10th and 90th percentile. An end is None where it is the coefficient's bound;
        both are where the value lies at a bound and where these runs do not identify it."""
        low, high = self._coefficient_ends(name)
        return {"value": self.coefficients[name], "low": low, "high": high}

    def _coefficient_ends(self, name: str) -> tuple[float | None, float | None]:
        if not len(self.draws) or name in self.unidentified or name in self.at_bound:
            return None, None
        if name in self.held:
            return self.coefficients[name], self.coefficients[name]
        return coefficient_ends(self.law, name, self.draws[:, self.law.coefficients.index(name)])

    def coefficient_notes(self) -> dict[str, str]:
        """What is to be known of each coefficient before its interval is read: held, at a bound, not identified, not
        bounded, or a value that lies outside its interval; one that these runs leave to the prior; '' for nothing."""
        share = {} if self.prior is None else self.prior.get("share", {})
        alone = {name: "the prior's alone" for name, value in share.items() if value >= ALONE}
        return {
            name: coefficient_note(
                self.coefficients[name],
                self._coefficient_ends(name),
                self.draws[:, k],
                held=name in self.held,
                at_bound=name in self.at_bound,
                identified=name not in self.unidentified,
            )
            or alone.get(name, "")
            for k, name in enumerate(self.law.coefficients)
        }

    def optimum(
        self, flops: float, settings: Mapping[str, float] | None = None, max_memory: float | None = None
    ) -> FittedOptimum:
        """The law's compute-optimal point with these coefficients, in its own convention of compute, with 80 %
        intervals and exponents from the bootstrap draws; that of the loss is `predict`'s, widened beyond the fitted
        runs, with its notes on the fit. Choices that `settings` leave (experts, granularity) are those within the
        fitted runs' range. Raises InputError as `moelab.laws.optimum.optimum`."""
        own = (self.law, self.coefficients, self.draws, self.ranges)
        found = fitted_optimum(*own, flops, settings or {}, max_memory, self.widening, self.prior)
        notes = unit_notes(self.law, self.ranges, self.measured)
        notes += carried_notes(self.law.id, self.law, self.kinds, self.holdout)
        unknown = [name for name in self.unidentified if name not in self.at_bound]  # one at a bound has no effect
        if unknown:
            notes.append(f"these runs do not identify {', '.join(unknown)}: this optimum is not theirs")
        return replace(found, notes=(*notes, *found.notes))

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
        """(B, n): the prediction of every bootstrap draw, its deviation widened by `widening`."""
        batch = {name: self.draws[:, k, None] for k, name in enumerate(self.law.coefficients)}
        size = np.size(next(iter(numbers.values())))
        with np.errstate(all="ignore"):
            values = np.broadcast_to(self.law.loss(batch, numbers), (len(self.draws), size))
            return self.widening.of(values, self.law.loss(self.coefficients, numbers), numbers)

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
                block = block * np.exp(self.widening.factor * self.draw_residuals(rng, block.shape))
            # The one that leaves out NaN is ten times slower.
            quantile = np.nanquantile if np.isnan(block).any() else np.quantile
            low[i : i + step], high[i : i + step] = quantile(block, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
        return low, high

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
        """Per coefficient: name, value, p10, p90, and its note."""
        return [
            (name, self.coefficients[name], *self._coefficient_ends(name), note)
            for name, note in self.coefficient_notes().items()
        ]

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
        """The same fit with its held-out score, and a note where that is bad."""
        failure = "" if holdout is None else holdout.failure(self.law.kind)
        return replace(self, holdout=holdout, notes=(*self.notes, failure) if failure else self.notes)


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
