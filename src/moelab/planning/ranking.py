"""Orders the designs that fit a budget, by one fitted ensemble or by each law's distance from its own optimum.

Losses of laws fitted to different text and tokenizers are not comparable. What is: C', the compute at which a law's own
optimum (under the same limits) reaches the loss it predicts for a design. log(C'/C) is 0 at that law's optimum and
falls with every FLOP a design wastes; designs are ranked by its median over the laws that vote.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moelab.errors import InputError
from moelab.laws import Conversion
from moelab.laws.design import Design
from moelab.planning.budget import Budget
from moelab.planning.feasible import Field, affordable_tokens
from moelab.planning.money import compute_of
from moelab.planning.voices import Voice, outside_range
from moelab.serving import ServingCost

Array = NDArray[Any]

CURVE = np.logspace(-2.0, 0.0, 9)
"""Fractions of the budget's compute at which a law's own optimum is found."""

CURVE_DESIGNS = 20_000
"""Designs, evenly spread over the feasible ones, that stand for the lattice below the budget itself."""


@dataclass(frozen=True)
class Curve:
    """A law's compute-optimal loss against the compute it spends, both (k,): compute ascending, loss descending."""

    log_compute: Array
    loss: Array

    @classmethod
    def of(cls, compute: Array, loss: Array) -> "Curve":
        """Keeps the points at which the optimum really gets better."""
        kept_c: list[float] = []
        kept_l: list[float] = []
        for c, value in sorted(zip(np.log(compute), loss, strict=True)):
            if np.isfinite(value) and (not kept_l or value < kept_l[-1] - 1e-12):
                kept_c.append(float(c))
                kept_l.append(float(value))
        return cls(np.array(kept_c), np.array(kept_l))

    def log_compute_at(self, loss: Any) -> Array:
        """Log of the compute at which the optimum reaches `loss`; beyond the curve's ends, along its last slope."""
        if len(self.loss) == 1:
            return np.where(np.isnan(loss), np.nan, self.log_compute[0])
        xs, ys = self.loss[::-1], self.log_compute[::-1]
        inside = np.interp(loss, xs, ys)
        worst, best = (ys[-1] - ys[-2]) / (xs[-1] - xs[-2]), (ys[1] - ys[0]) / (xs[1] - xs[0])
        above = ys[-1] + (np.asarray(loss) - xs[-1]) * worst
        below = ys[0] + (np.asarray(loss) - xs[0]) * best
        return np.asarray(np.where(loss > xs[-1], above, np.where(loss < xs[0], below, inside)))


@dataclass(frozen=True)
class Juror:
    """One vote: a published law, or all fits to the same runs, whose losses may be averaged."""

    voices: tuple[Voice, ...]

    @property
    def fitted(self) -> bool:
        """Whether this juror has coefficients from runs of the user's own."""
        return not self.voices[0].published

    @cached_property
    def weights(self) -> Array:
        """Weights of the laws, summing to 1."""
        weights = np.array([voice.weight for voice in self.voices])
        return np.asarray(weights / weights.sum())

    def mean(self, losses: dict[str, Array]) -> Array:
        """The weighted mean over this juror's laws, NaN where one of them does not speak."""
        return np.asarray(sum(w * losses[v.id] for w, v in zip(self.weights, self.voices, strict=True)))

    def loss(self, design: Design) -> Array:
        """Predicted loss of a design or lattice."""
        return self.mean({voice.id: voice.loss(voice.read(design)) for voice in self.voices})


@dataclass(frozen=True)
class Ranking:
    """The feasible designs with every law's opinion. `score` (n,) is lower for better designs, infinite if unranked.

    `cost` is the score in dollars where money, not loss, is made small; `target` the loss that must then be reached.
    """

    field: Field
    readings: dict[str, Conversion]
    losses: dict[str, Array]
    voices: tuple[Voice, ...]
    jury: tuple[Juror, ...]
    curves: tuple[Curve, ...]
    score: Array
    serving: ServingCost | None = None
    cost: Array | None = None
    target: float | None = None

    @cached_property
    def order(self) -> Array:
        """Positions of the ranked designs, best first."""
        order = np.argsort(self.score, kind="stable")
        return np.asarray(order[np.isfinite(self.score[order])])

    @property
    def best(self) -> int:
        """The recommended design."""
        return int(np.argmin(self.score))

    def best_of(self, mask: Array) -> int | None:
        """The best ranked design among those of the mask."""
        where = np.flatnonzero(mask & np.isfinite(self.score))
        return int(where[np.argmin(self.score[where])]) if len(where) else None

    def waste(self, index: Any) -> Array:
        """Share of its compute that each design wastes: 1 - C'/C by the median over the jury; of its money, if ranked
        by cost."""
        if self.cost is not None:
            return np.asarray(1 - self.score[self.best] / self.cost[index])
        at_best = [curve.log_compute[-1] for curve in self.curves]
        lost = [
            top - curve.log_compute_at(juror.mean({k: v[index] for k, v in self.losses.items()}))
            for top, curve, juror in zip(at_best, self.curves, self.jury, strict=True)
        ]
        return np.asarray(-np.expm1(-np.maximum(_median(np.array(lost)), 0)))


def rank(field: Field, budget: Budget, voices: Sequence[Voice], serving: ServingCost | None = None) -> Ranking:
    """Every law's loss for every design, and one order. Raises InputError where no law speaks about any of them."""
    readings = {voice.id: voice.read(field.design) for voice in voices}
    losses = {voice.id: voice.loss(readings[voice.id]) for voice in voices}
    jury = choose_jury(voices, losses, field)
    means = [juror.mean(losses) for juror in jury]
    if len(jury) == 1:
        curves: tuple[Curve, ...] = (curve_of(jury[0], means[0], field, budget),)
        score = np.where(np.isnan(means[0]), np.inf, means[0])
    else:
        curves = tuple(curve_of(juror, mean, field, budget) for juror, mean in zip(jury, means, strict=True))
        lost = [curve.log_compute[-1] - curve.log_compute_at(mean) for curve, mean in zip(curves, means, strict=True)]
        score = _majority_median(np.array(lost))
    return Ranking(field, readings, losses, tuple(voices), jury, curves, score, serving)


def score_of(ranking: Ranking, field: Field) -> tuple[Array | None, Array]:
    """Other designs judged by the same jury and curves: losses (n,) where a single juror votes, and log(C/C') (n,),
    negative for designs better than the optimum under the old limits, infinite where too few speak."""
    means = [juror.loss(field.design) for juror in ranking.jury]
    lost = np.array([c.log_compute[-1] - c.log_compute_at(m) for c, m in zip(ranking.curves, means, strict=True)])
    if len(means) == 1:
        return means[0], np.where(np.isnan(lost[0]), np.inf, lost[0])
    return None, _majority_median(lost)


def choose_jury(voices: Sequence[Voice], losses: dict[str, Array], field: Field) -> tuple[Juror, ...]:
    """Who votes: one's own fits before published laws, and only laws that can weigh what is being decided.

    That takes tokens among the variables (else size costs nothing) and, where the space holds MoE, words about most of
    its MoE designs: a law of a slice (dense, or one expansion) would rate the best of its slice as perfect. An average
    over fits needs laws that hold both kinds on one surface. Laws that only fall short of this vote if no other can.
    """
    moe = field.lattice.is_moe
    speaking = [voice for voice in voices if np.isfinite(losses[voice.id]).any()]
    if not speaking:
        raise InputError("law: none of the laws can speak about any design that fits: " + _reasons(voices, field))
    fitted = [voice for voice in speaking if not voice.published]
    able = fitted or speaking
    able = [voice for voice in able if "tokens" in voice.law.variables] or able
    if moe.any():
        wide = [voice for voice in able if _describes_most(voice, field, moe)]
        able = wide or [voice for voice in able if np.isfinite(losses[voice.id][moe]).any()] or able
    if fitted and not moe.all():
        able = [voice for voice in able if voice.compares_dense_with_moe] or able
    groups: dict[str, list[Voice]] = {}
    for voice in able:
        groups.setdefault(voice.runs or voice.id, []).append(voice)
    return tuple(Juror(tuple(group)) for group in groups.values())


def _describes_most(voice: Voice, field: Field, moe: Array) -> bool:
    """Whether the law has words for more than half of the MoE designs, its fitted range aside."""
    reading = voice.read(field.design)
    return bool((reading.covered | outside_range(reading))[moe].mean() > 0.5)


def _reasons(voices: Sequence[Voice], field: Field) -> str:
    parts = []
    for voice in voices:
        reading = voice.read(field.design)
        codes, counts = np.unique(reading.reason, return_counts=True)
        code = int(codes[np.argmax(counts)])
        parts.append(f"{voice.id}: {reading.reasons[code - 1] if code else 'its loss is not a number'}")
    return "; ".join(parts)


def curve_of(juror: Juror, at_budget: Array, field: Field, budget: Budget) -> Curve:
    """The juror's own optimum at fractions of the compute; its last point is exact, over all designs."""
    speaks = np.flatnonzero(np.isfinite(at_budget))
    stride = max(1, len(speaks) // CURVE_DESIGNS)
    some = field.lattice.take(speaks[::stride])
    compute = compute_of(some, budget)
    tokens = np.stack([affordable_tokens(some, budget, compute * f) for f in CURVE])
    usable = tokens >= some.space.seq_len
    tokens = np.where(usable, tokens, some.space.seq_len)
    unique = tokens if budget.unique_tokens is None else np.minimum(tokens, budget.unique_tokens)
    design = Design.of(some.shape, tokens, some.space.seq_len, unique)
    losses = np.where(usable, juror.loss(design), np.inf)
    losses = np.where(np.isnan(losses), np.inf, losses)
    best = losses.argmin(axis=1)
    rows = np.arange(len(CURVE))
    spent = (some.flops_train * tokens)[rows, best]
    found = losses[rows, best]
    top = int(np.nanargmin(at_budget))
    # The sample misses the optimum by a little, everywhere alike: shift it onto the exact optimum at the budget.
    found = found + (at_budget[top] - found[-1])
    spent[-1] = field.train_flops[top] if stride == 1 else max(field.train_flops[top], spent[-2] * 1.0001)
    return Curve.of(spent, found)


def _median(values: Array) -> Array:
    """Median over axis 0, ignoring NaN; infinite where nobody speaks."""
    ordered = np.sort(values, axis=0)
    count = np.isfinite(values).sum(axis=0)
    low = np.take_along_axis(ordered, np.maximum((count - 1) // 2, 0)[None], axis=0)[0]
    high = np.take_along_axis(ordered, np.maximum(count // 2, 0)[None], axis=0)[0]
    high = np.where(count % 2 == 1, low, high)
    return np.asarray(np.where(count > 0, (low + high) / 2, np.inf))


def _majority_median(lost: Array) -> Array:
    """The median where at least half of the jury speaks; infinite elsewhere."""
    speaking = np.isfinite(lost).sum(axis=0)
    most = speaking.max()
    return np.where(speaking * 2 >= min(len(lost), most), _median(lost), np.inf)
