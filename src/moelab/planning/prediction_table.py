"""Every law's predictions for some designs, computed together: loss, interval, range, distance from its optimum."""

from collections.abc import Mapping, Sequence

import numpy as np

from moelab.laws import Conversion
from moelab.laws.design import Design
from moelab.planning.candidate import Prediction
from moelab.planning.curve import Curve
from moelab.planning.predictors import Predictor


class PredictionTable:
    """The predictions of n designs. `curves` and `optima` are each law's own optimum under the same limits."""

    def __init__(
        self,
        design: Design,
        predictors: Sequence[Predictor],
        curves: Mapping[str, Curve],
        optima: Mapping[str, float],
    ) -> None:
        self.optima, self.design = optima, design
        self.predictors = {predictor.id: predictor for predictor in predictors}
        self.readings = {law: predictor.read(design) for law, predictor in self.predictors.items()}
        self.losses = {law: np.atleast_1d(p.loss(self.readings[law])) for law, p in self.predictors.items()}
        self.distances = {law: np.atleast_1d(p.extrapolation(self.readings[law])) for law, p in self.predictors.items()}
        self.excess = {law: curves[law].log_excess(loss) for law, loss in self.losses.items() if law in curves}

    def of(self, at: int) -> dict[str, Prediction]:
        """Every law's prediction for the design at this position."""
        return {law: self._one(law, at) for law in self.predictors}

    def _one(self, law: str, at: int) -> Prediction:
        loss, reading = float(self.losses[law][at]), self.readings[law]
        if not np.isfinite(loss):
            return Prediction(not_covered=reading.why(at) or "its formula gives no finite loss")
        low, high = self._interval(law, reading, at, loss)
        distance, predictor = float(self.distances[law][at]), self.predictors[law]
        one = {name: np.broadcast_to(v, self.losses[law].shape)[at] for name, v in reading.variables.items()}
        return Prediction(
            value=loss,
            low=low,
            high=high,
            extrapolation=None if np.isnan(distance) else distance,
            behind_loss=loss - self.optima[law],
            behind_compute=float(-np.expm1(-max(float(self.excess[law][at]), 0.0))),
            farthest=predictor.law.farthest(one, predictor.ranges) if distance > 0 else None,
            beyond_compute=self._beyond(predictor, at),
        )

    def _beyond(self, predictor: Predictor, at: int) -> float | None:
        """log10 of a design's training FLOPs over those of a fit's largest run; None where these are not known."""
        if predictor.most_flops is None:
            return None
        flops = np.broadcast_to(self.design.train_flops, self.losses[predictor.id].shape)[at]
        return float(np.log10(flops / predictor.most_flops))

    def _interval(self, law: str, reading: Conversion, at: int, loss: float) -> tuple[float | None, float | None]:
        predictor = self.predictors[law]
        if not predictor.n_draws:
            return None, None
        flops = np.broadcast_to(self.design.train_flops, self.losses[law].shape)[at]
        return predictor.interval(reading.take(slice(at, at + 1)), float(flops), loss)
