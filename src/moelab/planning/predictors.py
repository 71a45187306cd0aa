"""Predictors: laws, published or fitted, with their bootstrap draws, ranges and the designs to which they apply."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moelab.fitting.implausible import guessing_loss
from moelab.fitting.widening import AS_DRAWN, Widening
from moelab.laws import Conversion, Law, effective_tokens
from moelab.laws.design import Design
from moelab.laws.law import RANGE_SLACK, SCALE
from moelab.laws.reuse import R_D

Array = NDArray[Any]

OUTSIDE = "outside the fitted range"
"""Part of the reason for which a law does not apply to a design outside its fitted range."""


def outside_range(conversion: Conversion) -> Array:
    """Designs (n,) that the law can describe but that lie outside its fitted range."""
    codes = [code for code, text in enumerate(conversion.reasons, 1) if OUTSIDE in text]
    return np.isin(conversion.reason, codes)


TOKEN_WINDOW = "hold near"
"""Part of the reason for which a law, fitted to runs of equal tokens, does not apply far from that number."""


def excluded_by_range(conversion: Conversion) -> Array:
    """Designs (n,) that only the law's fitted range, or its window of tokens, excludes."""
    codes = [code for code, text in enumerate(conversion.reasons, 1) if TOKEN_WINDOW in text]
    return outside_range(conversion) | np.isin(conversion.reason, codes)


IGNORES_REPEATS = "tokens are not among its variables, so it cannot distinguish repeated data from new data"

ONE_EPOCH = 1.001
"""Epochs up to which all data counts as new."""


@dataclass(frozen=True, kw_only=True)
class Predictor:
    """One law with its coefficients. Fits with equal `runs` have comparable losses; `noise` is the relative spread of
    a fit's residuals. `reuse` scales R_D, the decay of the value of repeated tokens. `widening` is that of the draws'
    deviations from the prediction, as the fit has it. `unit_notes` are what shows that a fit was given another unit
    than parameters, tokens and nats per token, `fit_notes` what else a plan repeats of a fit; `prior` is that of a
    fit."""

    id: str
    law: Law
    coefficients: Mapping[str, float]
    draws: Mapping[str, Array] = field(default_factory=dict)
    ranges: Mapping[str, tuple[float, float] | None] = field(default_factory=dict)
    published: bool = True
    runs: str = ""
    weight: float = 1.0
    extrapolate: bool = False
    noise: float = 0.0
    reuse: float = 1.0
    widening: Widening = AS_DRAWN
    unit_notes: tuple[str, ...] = ()
    fit_notes: tuple[str, ...] = ()
    prior: Mapping[str, Any] | None = None
    most_flops: float | None = None

    @property
    def n_draws(self) -> int:
        """Bootstrap draws; 0 for published coefficients."""
        return len(next(iter(self.draws.values()))) if self.draws else 0

    @property
    def compares_dense_with_moe(self) -> bool:
        """Whether one loss surface covers dense and MoE designs."""
        return self.law.covers_dense and self.law.covers_moe

    @property
    def depends_on_granularity(self) -> bool:
        """Whether the law's prediction depends on the granularity of the experts."""
        return bool({"granularity", "active_experts"} & set(self.law.variables))

    def guessing_loss(self, vocab_size: int) -> float:
        """The loss of guessing, ln(vocab_size), in nats; for a published law, whose vocabulary differs, a large one."""
        return guessing_loss(vocab_size, self.published)

    def read(self, design: Design) -> Conversion:
        """The designs in the law's variables, and those to which the law applies.

        A law does not apply to designs that it cannot describe. Unless `extrapolate` is set, nor does it apply outside
        its fitted range in other variables than size, data and compute (experts, sparsity, granularity). For a law
        without `unique_tokens`, repeated tokens count as their effective number of new ones; a law without tokens does
        not apply to repeated data.
        """
        conversion = self.law.read(design, published=self.published)
        repeats = design.unique_tokens is not design.tokens
        if repeats and "unique_tokens" not in self.law.variables:
            if "tokens" in self.law.variables:
                worth = effective_tokens(design.tokens, design.unique_tokens, R_D * self.reuse)
                tokens = np.broadcast_to(worth, conversion.covered.shape)
                conversion = replace(conversion, variables={**conversion.variables, "tokens": tokens})
            else:
                conversion = _refused(conversion, IGNORES_REPEATS, design.tokens > design.unique_tokens * ONE_EPOCH)
        return conversion if self.extrapolate else self._within(conversion)

    def _within(self, conversion: Conversion) -> Conversion:
        limits = {
            name: limits
            for name, limits in self.ranges.items()
            if limits and name in conversion.variables and name not in SCALE and not name.startswith("params")
        }
        outside = [(name, _beyond(name, conversion.variables[name], *limits[name])) for name in limits]
        for name, mask in outside:
            low, high = limits[name]
            conversion = _refused(conversion, f"{name} {OUTSIDE} {low:.3g} to {high:.3g}", mask)
        return conversion

    def formula(self, conversion: Conversion, where: Array | None = None) -> Array:
        """The formula's value (n,), covered or not; NaN outside the mask `where`."""
        variables = {name: conversion.variables[name] for name in self.law.variables}
        with np.errstate(all="ignore"):
            if where is None or where.mean() > 0.5:
                return np.asarray(self.law.loss(self.coefficients, variables))
            result = np.full(where.shape, np.nan)
            if where.any():
                some = {name: column[where] for name, column in variables.items()}
                result[where] = self.law.loss(self.coefficients, some)
            return result

    def with_reuse(self, scale: float) -> "Predictor":
        """The same law with R_D times `scale`: its own coefficient where it has one, else the dense law's."""
        if "R_D" not in self.coefficients:
            return replace(self, reuse=self.reuse * scale)
        coefficients = {**self.coefficients, "R_D": self.coefficients["R_D"] * scale}
        draws = {name: values * scale if name == "R_D" else values for name, values in self.draws.items()}
        return replace(self, coefficients=coefficients, draws=draws)

    def loss(self, conversion: Conversion) -> Array:
        """Predicted loss (n,), NaN where the law does not apply."""
        loss = self.formula(conversion)
        return np.where(conversion.covered & np.isfinite(loss), loss, np.nan)

    def formula_draws(self, conversion: Conversion, flops: Any, most: int | None = None) -> Array:
        """The formula's value under each bootstrap draw (R, n), covered or not; `most` draws at most. `flops` are the
        designs' training FLOPs (n,): intervals grow with them beyond the largest fitted run, or, where its FLOPs are
        not known, as the law's variables give the distance."""
        picked = {name: np.asarray(values)[:most, None] for name, values in self.draws.items()}
        variables = {name: np.atleast_1d(conversion.variables[name]) for name in self.law.variables}
        with np.errstate(all="ignore"):
            losses = np.asarray(self.law.loss(picked, variables), float)
            values = np.asarray(self.law.loss(self.coefficients, variables), float)
            far = None
            if self.most_flops is not None:
                far = np.maximum(np.log(np.atleast_1d(flops) / self.most_flops), 0.0)
            return self.widening.of(losses, values, variables, far)

    def draw_losses(self, conversion: Conversion, flops: Any, most: int | None = None) -> Array:
        """Predicted loss under each usable bootstrap draw (R, n); draws with values that are not finite are dropped."""
        covered = np.atleast_1d(conversion.covered)
        losses = np.where(covered, self.formula_draws(conversion, flops, most), np.nan)
        return np.asarray(losses[np.isfinite(losses[:, covered]).all(axis=1)])

    def interval(self, conversion: Conversion, flops: float, value: float) -> tuple[float | None, float | None]:
        """p10 and p90 of the loss of one design over all draws, as `predict` has them, but widened to hold its `value`;
        None without draws."""
        losses = self.draw_losses(conversion, flops)[:, 0] if self.n_draws else np.zeros(0)
        if not len(losses):
            return None, None
        low, high = np.quantile(losses, (0.1, 0.9))
        return min(float(low), value), max(float(high), value)

    def extrapolation(self, conversion: Conversion) -> Array:
        """Largest log10 distance outside the fitted range (n,); NaN where no range is known."""
        return self.law.extrapolation(conversion.variables, self.ranges)


def _refused(conversion: Conversion, why: str, where: Any) -> Conversion:
    """Mark the designs of the mask as not covered for this reason, unless they have a reason already."""
    reasons = (*conversion.reasons, why)
    mask = (conversion.reason == 0) & np.broadcast_to(where, conversion.reason.shape)
    reason = np.where(mask, np.int8(len(reasons)), conversion.reason)
    return replace(conversion, reason=reason, covered=reason == 0, reasons=reasons)


def _beyond(name: str, value: Array, low: float, high: float) -> Array:
    """Outside [low, high] by more than the slack, S measured as 1 / (1 - S) as in `Law.extrapolation`."""
    slack = 10**RANGE_SLACK
    if name == "sparsity":
        return (value > 1 - (1 - high) / slack) | (value < 1 - (1 - low) * slack)
    return (value > high * slack) | (value < low / slack)
