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
from moelab.planning.budget import Budget
from moelab.planning.curve import Curve, curve_of
from moelab.planning.feasible import Field
from moelab.planning.jury import Juror, choose_jury
from moelab.planning.voices import Voice, held_back
from moelab.serving import ServingCost

Array = NDArray[Any]

BEHIND = 1e6
"""Added to the score of a design for every vote that others of its kind have and it lacks: more than any log(C/C')."""

KEPT = 100_000
"""Best designs that are put in order; the rest only need to be known as worse."""


@dataclass(frozen=True)
class Opinion:
    """One law's best design (-1: it covers none) with its loss; `losses` (n,) of all designs, NaN where it is silent,
    only for laws that vote; `outside` the least loss its formula gives a design that only its fitted range, or its
    window of tokens, excludes."""

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
    quorum: "Quorum | None" = None

    @cached_property
    def order(self) -> Array:
        """Positions of the best ranked designs, best first (at most `KEPT`)."""
        kept = np.arange(len(self.score))
        if len(kept) > KEPT:
            kept = np.sort(np.argpartition(self.score, KEPT)[:KEPT])
        order = kept[np.argsort(self.score[kept], kind="stable")]
        return np.asarray(order[np.isfinite(self.score[order])])

    @cached_property
    def seen(self) -> list[Array]:
        """What the voting laws see, and the price where money decides (each (n,)), on scales where ratios count."""
        columns = [1 / (1 - column) if name == "sparsity" else column for name, column in self.inputs.items()]
        return columns if self.cost is None else [*columns, self.cost]

    @property
    def sees_granularity(self) -> bool:
        """Whether some voting law's word depends on granularity."""
        return any(voice.sees_granularity for juror in self.jury for voice in juror.voices)

    @cached_property
    def votes(self) -> Array:
        """How many of the jury speak about each design (n,)."""
        return np.asarray(sum(np.isfinite(self.mean(juror)).astype(int) for juror in self.jury))

    @cached_property
    def heard(self) -> Array:
        """Ranked designs (n,) that no fewer laws speak about than about others of their kind, dense or MoE."""
        if self.quorum is None:
            return np.isfinite(self.score)
        return np.asarray(np.isfinite(self.score) & (self.votes >= self.quorum.most(self.field.lattice.is_moe)))

    @cached_property
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


@dataclass(frozen=True)
class Quorum:
    """How many of several voters must speak: more than half (where nowhere so many do: as many as do), and, to come
    first, as many as speak about any design of its kind: medians over different juries do not compare."""

    needed: int
    dense: int
    moe: int

    @classmethod
    def of(cls, lost: Array, is_moe: Array) -> "Quorum":
        """From log(C/C') of every voter (voters, n), NaN where it is silent."""
        speaking = np.isfinite(lost).sum(axis=0)
        dense, moe = (int(speaking[kind].max(initial=0)) for kind in (~is_moe, is_moe))
        return cls(min(len(lost) // 2 + 1, max(dense, moe, 1)), dense, moe)

    def most(self, is_moe: Array) -> Array:
        """The most voters that speak about any design of each design's kind (n,)."""
        return np.where(is_moe, self.moe, self.dense)

    def score(self, lost: Array, is_moe: Array) -> Array:
        """The median (n,), `BEHIND` for every voter that is missing, infinite where too few speak."""
        speaking = np.isfinite(lost).sum(axis=0)
        missing = np.maximum(self.most(is_moe) - speaking, 0)
        return np.where(speaking >= self.needed, _median(lost) + BEHIND * missing, np.inf)


def rank(field: Field, budget: Budget, voices: Sequence[Voice], serving: ServingCost | None = None) -> Ranking:
    """Every law's loss for every design, and one order. Raises InputError where no law speaks about any of them."""
    jury = choose_jury(voices, field)
    opinions, inputs = consult(field, voices, jury)
    losses = {name: opinion.losses for name, opinion in opinions.items() if opinion.losses is not None}
    means = [juror.mean(losses) for juror in jury]
    curves = tuple(curve_of(juror, mean, field, budget) for juror, mean in zip(jury, means, strict=True))
    if len(jury) == 1:
        score = np.where(np.isnan(means[0]), np.inf, means[0])
        quorum = None
    else:
        lost = np.array([c.lost(mean) for c, mean in zip(curves, means, strict=True)])
        quorum = Quorum.of(lost, field.lattice.is_moe)
        score = quorum.score(lost, field.lattice.is_moe)
    if not np.isfinite(score).any():
        raise InputError("law: the voting laws cover no design that fits together; give one of them alone")
    return Ranking(field, opinions, inputs, tuple(voices), jury, curves, score, serving, quorum=quorum)


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
            beyond = held_back(reading) if voice.id in voting else np.zeros(len(part), bool)
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
    assert ranking.quorum is not None
    return None, ranking.quorum.score(lost, field.lattice.is_moe)


def _median(values: Array) -> Array:
    """Median over axis 0, ignoring NaN; infinite where nobody speaks. Few rows, so they sort by exchanges."""
    count = np.isfinite(values).sum(axis=0)
    ordered = np.where(np.isnan(values), np.inf, values)
    for end in range(len(ordered) - 1, 0, -1):
        for row in range(end):
            lower = np.minimum(ordered[row], ordered[row + 1])
            np.maximum(ordered[row], ordered[row + 1], out=ordered[row + 1])
            ordered[row] = lower
    low = np.take_along_axis(ordered, (np.maximum(count - 1, 0) // 2)[None], axis=0)[0]
    high = np.take_along_axis(ordered, np.minimum(count // 2, len(ordered) - 1)[None], axis=0)[0]
    return np.where(count == 0, np.inf, (low + high) / 2)
