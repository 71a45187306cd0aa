"""A fitted law: coefficients, bootstrap draws, the range it was fitted on, and what it predicts with what interval."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moelab.errors import InputError
from moelab.files import read_json, write_json
from moelab.fitting.columns import columns_of
from moelab.fitting.designs import design_variables, predicted_value
from moelab.laws import Conversion, Law, get_law

Array = NDArray[Any]
LEVEL = 0.8
_BLOCK = 2_000_000


@dataclass(frozen=True)
class Prediction:
    """One number per design. `low` and `high` are the 10th and 90th percentile (NaN without bootstrap draws);
    `extrapolation` is the largest log10 distance outside the fitted range."""

    value: Array
    low: Array
    high: Array
    extrapolation: Array


@dataclass(frozen=True, kw_only=True)
class Holdout:
    """How well runs that the fit did not see were predicted. `rows` has one entry per held-out run."""

    n_runs: int
    mean_abs_rel: float
    bias_rel: float
    coverage_80: float | None
    max_extrapolation: float | None
    by: str
    rows: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True, eq=False)
class FittedLaw:
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
        from moelab.fitting.plots import plot_fits

        return plot_fits([self])

    def plot_holdout(self) -> Any:
        """Error of each held-out run by how far beyond the fitted ones it lies, as an Altair chart."""
        from moelab.fitting.plots import plot_holdout

        return plot_holdout([self])

    def mean_interval(self, numbers: Mapping[str, Array]) -> float | None:
        """Mean half-width of the law's own 80 % interval over some runs, relative to the prediction."""
        if not len(self.draws):
            return None
        low, high = self._spread(dict(numbers), noise=False)
        return float(np.mean((high - low) / 2 / self.law.loss(self.coefficients, numbers)))

    def with_holdout(self, holdout: Holdout | None) -> "FittedLaw":
        """The same fit with its held-out score."""
        return replace(self, holdout=holdout)

    def to_json(self, draws: bool = True) -> dict[str, Any]:
        """Plain data; `from_json` reads it back when the draws are kept."""
        result: dict[str, Any] = {
            "law": self.law.id,
            "n_runs": self.n_runs,
            "coefficients": {name: self.interval(name) for name in self.law.coefficients},
            "in_sample": self.in_sample,
            "holdout": asdict(self.holdout) if self.holdout else None,
            "objective": self.objective,
            "objective_kind": self.objective_kind,
            "starts": self.starts,
            "starts_agreeing": self.starts_agreeing,
            "at_bound": list(self.at_bound),
            "condition": self.condition if np.isfinite(self.condition) else None,
            "held": self.held,
            "free": self.free,
            "ranges": {name: list(limits) for name, limits in self.ranges.items()},
            "notes": list(self.notes),
            "seed_noise": self.seed_noise,
            "interval_rel": self.interval_rel,
            "bootstrap": len(self.draws),
            "cpu_seconds": self.cpu_seconds,
        }
        if draws:
            result["measured"] = self.measured.tolist()
            result["predicted"] = self.predicted.tolist()
            result["labels"] = list(self.labels)
            result["kinds"] = list(self.kinds)
            result["draws"] = self.draws.tolist()
        return result

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "FittedLaw":
        """The inverse of `to_json`. Raises InputError naming what is missing."""
        try:
            law = get_law(value["law"])
            draws = np.asarray(value["draws"], float).reshape(-1, len(law.coefficients))
            if not all(np.isfinite(float(value["coefficients"][name]["value"])) for name in law.coefficients):
                raise ValueError("a coefficient is not a finite number")
            return cls(
                law=law,
                n_runs=int(value["n_runs"]),
                coefficients={name: float(value["coefficients"][name]["value"]) for name in law.coefficients},
                draws=draws,
                ranges={name: (float(low), float(high)) for name, (low, high) in value["ranges"].items()},
                objective=float(value["objective"]),
                objective_kind=str(value["objective_kind"]),
                starts=int(value["starts"]),
                starts_agreeing=int(value["starts_agreeing"]),
                at_bound=tuple(value["at_bound"]),
                condition=float("inf") if value["condition"] is None else float(value["condition"]),
                held=dict(value["held"]),
                in_sample=dict(value["in_sample"]),
                measured=np.asarray(value["measured"], float),
                predicted=np.asarray(value["predicted"], float),
                labels=tuple(value["labels"]),
                kinds=tuple(value["kinds"]),
                free=int(value["free"]),
                cpu_seconds=float(value["cpu_seconds"]),
                notes=tuple(value["notes"]),
                seed_noise=value.get("seed_noise"),
                interval_rel=value.get("interval_rel"),
                holdout=Holdout(**value["holdout"]) if value.get("holdout") else None,
            )
        except KeyError as error:
            raise InputError(f"fit file: the key {error.args[0]!r} is missing") from None
        except (TypeError, ValueError, AttributeError) as error:
            raise InputError(f"fit file: {error}") from None


def save_fits(fits: Mapping[str, FittedLaw], path: str | Path) -> None:
    """Write `{"fits": {LAW_ID: ...}}` with all draws."""
    write_json(Path(path), {"fits": {law_id: fitted.to_json() for law_id, fitted in fits.items()}})


def load_fits(path: str | Path) -> dict[str, FittedLaw]:
    """Read a fit file. Raises InputError when it is none."""
    value = read_json(Path(path), "fit file")
    if not isinstance(value, dict) or not isinstance(value.get("fits"), dict) or not value["fits"]:
        raise InputError(f'fit file: {path} holds no {{"fits": ...}}; write one with moelab fit --out')
    fits = {}
    for law_id, fitted in value["fits"].items():
        try:
            fits[law_id] = FittedLaw.from_json(fitted)
        except InputError as error:
            raise InputError(f"fit file {path}: {law_id}: {str(error).removeprefix('fit file: ')}") from None
    return fits
