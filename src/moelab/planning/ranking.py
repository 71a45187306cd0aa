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

CURVE = np.logspace(-1.5, 0.0, 7)
"""Fractions of the budget's compute at which a law's own optimum is found."""

CURVE_DESIGNS = 8_000
"""Designs that stand for the lattice below the budget itself: half the best at the budget, half drawn at random."""

SAMPLE = 20_000
"""Designs on which it is decided who votes."""

KEPT = 100_000
"""Best designs that are put in order; the rest only need to be known as worse."""


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

    def lost(self, loss: Any) -> Array:
        """log(C/C'): 0 at the optimum, positive for designs that waste compute, negative beyond the optimum."""
        return np.asarray(self.log_compute[-1] - self.log_compute_at(loss))


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
class Opinion:
    """One law's best design (-1: it covers none) with its loss; `losses` (n,) of all designs, NaN where it is silent,
    only for laws that vote; `outside` the least loss its formula gives a design that only its fitted range excludes."""

    best: int
    loss: float
    outside: float
    losses: Array | None = None


@dataclass(frozen=True)
class Ranking:
    """The feasible designs with every law's opinion. `score` (n,) is lower for better designs, infinite if unranked.

    `inputs` holds, by name, what the voting laws see of each design. `cost` is the score in dollars where money, not
    loss, is made small; `target` the loss that must then be reached.
    """

    field: Field
    opinions: dict[str, Opinion]
    inputs: dict[str, Array]
    voices: tuple[Voice, ...]
    jury: tuple[Juror, ...]
    curves: tuple[Curve, ...]
    score: Array
    serving: ServingCost | None = None
    cost: Array | None = None
    target: float | None = None

    @cached_property
    def order(self) -> Array:
        """Positions of the best ranked designs, best first (at most `KEPT`)."""
        kept = np.arange(len(self.score))
        if len(kept) > KEPT:
            kept = np.sort(np.argpartition(self.score, KEPT)[:KEPT])
        order = kept[np.argsort(self.score[kept], kind="stable")]
        return np.asarray(order[np.isfinite(self.score[order])])

    @property
    def best(self) -> int:
        """The recommended design."""
        return int(np.argmin(self.score))

    def best_of(self, mask: Array) -> int | None:
        """The best ranked design among those of the mask."""
        where = np.flatnonzero(mask & np.isfinite(self.score))
        return int(where[np.argmin(self.score[where])]) if len(where) else None

    def mean(self, juror: Juror, index: Any = slice(None)) -> Array:
        """A voting juror's loss for designs `index`."""
        losses = {voice.id: self.opinions[voice.id].losses for voice in juror.voices}
        return juror.mean({name: column[index] for name, column in losses.items() if column is not None})

    def waste(self, index: Any) -> Array:
        """Share of its compute that each design wastes: 1 - C'/C by the median over the jury; of its money, if ranked
        by cost."""
        if self.cost is not None:
            return np.asarray(1 - self.score[self.best] / self.cost[index])
        lost = [curve.lost(self.mean(juror, index)) for curve, juror in zip(self.curves, self.jury, strict=True)]
        return np.asarray(-np.expm1(-np.maximum(_median(np.array(lost)), 0)))


def rank(field: Field, budget: Budget, voices: Sequence[Voice], serving: ServingCost | None = None) -> Ranking:
    """Every law's loss for every design, and one order. Raises InputError where no law speaks about any of them."""
    jury = choose_jury(voices, field)
    opinions, inputs = consult(field, voices, jury)
    losses = {name: opinion.losses for name, opinion in opinions.items() if opinion.losses is not None}
    means = [juror.mean(losses) for juror in jury]
    curves = tuple(curve_of(juror, mean, field, budget) for juror, mean in zip(jury, means, strict=True))
    if len(jury) == 1:
        score = np.where(np.isnan(means[0]), np.inf, means[0])
    else:
        score = _majority_median(np.array([c.lost(mean) for c, mean in zip(curves, means, strict=True)]))
    if not np.isfinite(score).any():
        raise InputError("law: the voting laws cover no design that fits together; give one of them alone")
    return Ranking(field, opinions, inputs, tuple(voices), jury, curves, score, serving)


def consult(
    field: Field, voices: Sequence[Voice], jury: Sequence[Juror]
) -> tuple[dict[str, Opinion], dict[str, Array]]:
    """Every law's opinion on every design, and the variables that the jury sees; a chunk of designs at a time."""
    n, moe = len(field), field.lattice.is_moe
    voting = {voice.id for juror in jury for voice in juror.voices}
    losses = {name: np.full(n, np.nan) for name in voting}
    best = {voice.id: (-1, np.inf) for voice in voices}
    outside = {voice.id: np.inf for voice in voices}
    inputs: dict[str, Array] = {}
    for chunk in field.lattice.chunks():
        part = field.take(chunk)
        for voice in voices:
            if not voice.law.covers_moe and moe[chunk].all():
                continue
            reading = voice.read(part.design)
            beyond = outside_range(reading) if voice.id in voting else np.zeros(len(part), bool)
            formula = np.where(reading.covered | beyond, voice.formula(reading, reading.covered | beyond), np.nan)
            loss = np.where(reading.covered & np.isfinite(formula), formula, np.inf)
            lowest = int(loss.argmin())
            if loss[lowest] < best[voice.id][1]:
                best[voice.id] = (chunk.start + lowest, float(loss[lowest]))
            if voice.id not in voting:
                continue
            losses[voice.id][chunk] = np.where(np.isinf(loss), np.nan, loss)
            outside[voice.id] = min(outside[voice.id], float(np.min(formula, where=beyond, initial=np.inf)))
            for name in voice.law.variables:
                if name not in inputs:
                    inputs[name] = np.empty(n)
                inputs[name][chunk] = reading.variables[name]
    opinions = {v.id: Opinion(*best[v.id], outside[v.id], losses.get(v.id)) for v in voices}
    return opinions, inputs


def score_of(ranking: Ranking, field: Field) -> tuple[Array | None, Array]:
    """Other designs judged by the same jury and curves: losses (n,) where a single juror votes, and log(C/C') (n,),
    negative for designs better than the optimum under the old limits, infinite where too few speak."""
    means = [juror.loss(field.design) for juror in ranking.jury]
    lost = np.array([curve.lost(mean) for curve, mean in zip(ranking.curves, means, strict=True)])
    if len(means) == 1:
        return means[0], np.where(np.isnan(lost[0]), np.inf, lost[0])
    return None, _majority_median(lost)


def choose_jury(voices: Sequence[Voice], field: Field) -> tuple[Juror, ...]:
    """Who votes: one's own fits before published laws, and only laws that can weigh what is being decided.

    That takes tokens among the variables (else size costs nothing) and, where the space holds MoE, words about most of
    its MoE designs: a law of a slice (dense, or one expansion) would rate the best of its slice as perfect. An average
    over fits needs laws that hold both kinds on one surface. Laws that only fall short of this vote if no other can.
    """
    some = field if len(field) <= SAMPLE else field.take(_draw(len(field), SAMPLE))
    readings = {voice.id: voice.read(some.design) for voice in voices}
    speaking = [voice for voice in voices if readings[voice.id].covered.any()]
    if not speaking:
        raise InputError("law: none of the laws can speak about any design that fits: " + _reasons(readings))
    moe = some.lattice.is_moe
    fitted = [voice for voice in speaking if not voice.published]
    able = fitted or speaking
    able = [voice for voice in able if "tokens" in voice.law.variables] or able
    if moe.any():
        described = {v.id: (readings[v.id].covered | outside_range(readings[v.id]))[moe].mean() for v in able}
        wide = [voice for voice in able if described[voice.id] > 0.5]
        able = wide or [voice for voice in able if readings[voice.id].covered[moe].any()] or able
    if fitted and not moe.all():
        able = [voice for voice in able if voice.compares_dense_with_moe] or able
    groups: dict[str, list[Voice]] = {}
    for voice in able:
        groups.setdefault(voice.runs or voice.id, []).append(voice)
    return tuple(Juror(tuple(group)) for group in groups.values())


def _reasons(readings: dict[str, Conversion]) -> str:
    """For each law, its commonest reason."""
    parts = []
    for name, reading in readings.items():
        codes, counts = np.unique(reading.reason, return_counts=True)
        code = int(codes[np.argmax(counts)])
        parts.append(f"{name}: {reading.reasons[code - 1] if code else 'its formula gives no number'}")
    return "; ".join(parts)


def _draw(n: int, count: int) -> Array:
    """`count` of n positions, the same ones every time, ascending."""
    return np.sort(np.random.default_rng(0).choice(n, count, replace=False))


def curve_of(juror: Juror, at_budget: Array, field: Field, budget: Budget, designs: int = CURVE_DESIGNS) -> Curve:
    """The juror's own optimum at fractions of the compute; its last point is exact, over all designs.

    `at_budget` is its loss for every design of the field, NaN where it is silent.
    """
    speaks = np.flatnonzero(np.isfinite(at_budget))
    chosen, everything = speaks, len(speaks) <= designs
    if not everything:
        best = speaks[np.argpartition(at_budget[speaks], designs // 2)[: designs // 2]]
        chosen = np.union1d(best, speaks[_draw(len(speaks), designs // 2)])
    top = int(speaks[np.argmin(at_budget[speaks])])
    return curve_through(juror, field.take(chosen), budget, float(at_budget[top]), float(field.train_flops_at(top)))


def curve_through(juror: Juror, some: Field, budget: Budget, best_loss: float, best_spent: float) -> Curve:
    """The optimum over `some` designs at fractions of the compute that the known optimum spends (less than there is where
    data is scarce), shifted onto that optimum."""
    seq_len, compute = some.lattice.space.seq_len, compute_of(some.lattice, budget)
    share = min(1.0, best_spent / float(np.max(compute)))
    shares = [share * f for f in CURVE[:-1]] + [1.0]
    tokens = np.stack([affordable_tokens(some.lattice, budget, compute * f) for f in shares])
    usable = tokens >= seq_len
    tokens = np.where(usable, tokens, seq_len)
    unique = None if budget.unique_tokens is None else np.minimum(tokens, budget.unique_tokens)
    losses = juror.loss(Design.of(some.lattice.shape, tokens, seq_len, unique))
    losses = np.where(usable & np.isfinite(losses), losses, np.inf)
    best, rows = losses.argmin(axis=1), np.arange(len(CURVE))
    spent, found = (some.lattice.flops_train * tokens)[rows, best], losses[rows, best]
    if np.isfinite(found[-1]):
        found = found + (best_loss - found[-1])
    found[-1], spent[-1] = best_loss, best_spent
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
    """The median where more than half of the jury speaks (where nowhere so many do: as many as do); else infinite."""
    speaking = np.isfinite(lost).sum(axis=0)
    needed = min(len(lost) // 2 + 1, max(int(speaking.max()), 1))
    return np.where(speaking >= needed, _median(lost), np.inf)
