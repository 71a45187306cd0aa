"""The prior of a law from many tables: each table's coefficients are drawn from one distribution, whose mean and spread
between tables are estimated (empirical Bayes, by Laplace's approximation of each table and an EM algorithm).

Floor and scales spread as widely as the tables do; the structure is shared as far as the tables agree. Tables that do
not identify a coefficient leave it to the others.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moelab.fitting.objective import Objective
from moelab.fitting.observations import Observations
from moelab.fitting.posterior import Evidence, information, maximise
from moelab.fitting.prior import Prior
from moelab.fitting.prior_fit import WINSOR, evidence_of, fit_with_prior
from moelab.fitting.widening import held_out
from moelab.laws import Law

Array = NDArray[Any]
LEVELS = {"E_0": (0.4, 3.0), "A": (0.05, 3.0), "B": (0.02, 2.0)}
"""Where the floor, the size term at 1e8 parameters and the data term at 1e10 tokens may lie, in nats per token."""
SPREAD_SHARE, SPREAD_ROWS = 0.25, 2.0
"""Spread between tables before any is seen, as a share of a coefficient's half-range, and the tables it is worth.
Inner hold-outs of 0.12, 0.25 and 0.5 disagree (docs/benchmarks.md), so the share is the middle one."""
ROUNDS, BOOTSTRAP = 25, 200
BYTES_PER_TOKEN = 10.5 / 2.34
"""Of the public tables: 10.5 TB of MassiveText are 2.34T tokens (arXiv 2112.11446: 300B tokens are 12.8 % of it)."""
FREE = 10.0
"""Spread of what is free in a table, in half-ranges."""
DRIFT_ROWS, DRIFT_DRAWS, DRIFT_SPLITS = 20, 100, 2.0
"""Runs from which a table shows a drift, draws of the fits, and how many splits of a user's own table it is worth."""
NOISE, NOISE_ROWS = 0.005, 4.0
"""Spread of log losses about the law before any table is seen, and the runs it is worth."""


@dataclass(frozen=True, eq=False)
class Table:
    """One source: its runs (or a published law on a grid), the group of sources it belongs to, and what to record.

    `noise` is given for a published law, None for runs. A table with `only` some coefficients informs these alone,
    beside the population of the other tables: its runs lie decades away from the sizes at which the others are written.
    """

    name: str
    group: str
    data: Observations
    record: Mapping[str, Any]
    noise: float | None = None
    only: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class _Normal:
    """A table's likelihood near its optimum: information H (P, P) and H times its centre (P,)."""

    information: Array
    centre: Array


@dataclass(frozen=True, eq=False)
class _Population:
    """Mean (P,) of the tables' coordinates, variance between tables (P,), covariance of the mean (P, P)."""

    mean: Array
    between: Array
    covariance: Array


def build_prior(
    law: Law,
    tables: Sequence[Table],
    name: str,
    *,
    objective: str = "huber:1e-2",
    seed: int = 0,
    rounds: int = ROUNDS,
) -> Prior:
    """The prior of a law from these tables, each with its own floor and scales. Deterministic."""
    kind = Objective.parse(objective)
    prior = _of_population(law, [table for table in tables if not table.only], name, kind, seed, rounds)
    for table in tables:
        prior = _with_only(law, prior, table, kind, rounds) if table.only else prior
    sources = tuple({"name": table.name, "group": table.group, **table.record} for table in tables)
    prior = replace(prior, sources=sources)
    drift = drift_of(law, [table for table in tables if table.noise is None], prior, kind, seed)
    return prior if drift is None else replace(prior, drift=(drift, DRIFT_SPLITS))


def _of_population(law: Law, tables: Sequence[Table], name: str, kind: Objective, seed: int, rounds: int) -> Prior:
    """The prior of the tables that inform all coefficients, without their list."""
    anchor, width = anchors(law)
    evidence = [evidence_of(table.data, law, kind) for table in tables]
    first = (SPREAD_SHARE * width) ** 2
    population = _Population(anchor, first, np.diag(width**2))
    theta = [anchor.copy() for _ in tables]
    noise = [table.noise or NOISE for table in tables]
    for _ in range(rounds):
        normals = []
        for k, table in enumerate(tables):
            precision = np.diag(1 / population.between)
            theta[k] = _optimum(evidence[k], theta[k], population.mean, precision, noise[k])
            if table.noise is None:
                noise[k] = _noise_of(evidence[k], theta[k], precision, noise[k])
            normals.append(_normal(evidence[k], theta[k], population, noise[k]))
        population = _estimate(normals, population, anchor, width, first, rounds=1)
    spread = _over_tables(normals, population, anchor, width, first, [table.group for table in tables], seed)
    covariance = np.diag(population.between) + population.covariance + spread
    runs = [n for n, table in zip(noise, tables, strict=True) if table.noise is None] or [NOISE]
    return Prior(
        name=name,
        law=law.id,
        coefficients=law.coefficients,
        mean=population.mean,
        covariance=0.5 * (covariance + covariance.T),
        noise=(float(np.exp(np.mean(np.log(runs)))), NOISE_ROWS),
        sources=(),
        bytes_per_token=BYTES_PER_TOKEN,
    )


def _with_only(law: Law, prior: Prior, table: Table, kind: Objective, rounds: int) -> Prior:
    """The prior with a table's word on the coefficients that it is asked for; all others are free in this table."""
    anchor, width = anchors(law)
    asked = np.array([each in table.only for each in law.coefficients])
    evidence, noise, theta = evidence_of(table.data, law, kind), table.noise or NOISE, prior.mean.copy()
    mean, spread = np.where(asked, anchor, prior.mean), np.where(asked, width, FREE * width) ** 2
    for _ in range(rounds):
        theta = _optimum(evidence, theta, mean, np.diag(1 / spread), noise)
        noise = table.noise or _noise_of(evidence, theta, np.diag(1 / spread), noise)
    shared = information(evidence, theta, noise)
    whole = shared + np.diag(np.where(asked, 0.0, 1 / spread))
    centre = shared @ theta + (theta - mean) / spread + np.where(asked, 0.0, mean / spread)
    across = np.linalg.solve(whole[np.ix_(~asked, ~asked)], whole[np.ix_(~asked, asked)]).T
    normal = _Normal(
        whole[np.ix_(asked, asked)] - across @ whole[np.ix_(~asked, asked)], centre[asked] - across @ centre[~asked]
    )
    first = (SPREAD_SHARE * width[asked]) ** 2
    population = _Population(anchor[asked], first, np.diag(width[asked] ** 2))
    population = _estimate([normal], population, anchor[asked], width[asked], first, rounds)
    found, covariance = prior.mean.copy(), np.where(asked[:, None] | asked, 0.0, prior.covariance)
    found[asked] = population.mean
    covariance[np.ix_(asked, asked)] = np.diag(population.between) + population.covariance
    return replace(prior, mean=found, covariance=0.5 * (covariance + covariance.T))


def drift_of(law: Law, tables: Sequence[Table], prior: Prior, objective: Objective, seed: int = 0) -> float | None:
    """By how much fits to the cheaper runs of these tables go wrong for each e-fold of compute beyond them: the mean
    over papers of the root mean square of each. None where no table has enough runs.

    Papers differ severalfold, and of such a mixture four fifths lie nearer than their root mean square.
    """
    groups: dict[str, list[float]] = {}
    for table in [table for table in tables if len(table.data) >= DRIFT_ROWS]:
        splits = held_out(table.data, lambda part: fit_with_prior(part, law, prior, objective, {}, DRIFT_DRAWS, seed))
        found = [square for square in (split.squared_drift for split in splits) if square is not None]
        groups.setdefault(table.group, []).extend(found)
    drifts = [float(np.sqrt(np.mean(found))) for found in groups.values() if found]
    return float(np.mean(drifts)) if drifts else None


def anchors(law: Law) -> tuple[Array, Array]:
    """Centre and half-range (P,) of each coordinate before any table is seen: those of the law's own search box."""
    ends = []
    for name in law.coefficients:
        pair = LEVELS.get(name) or law.search[name]
        ends.append(np.log(pair) if name in law.positive else np.asarray(pair, float))
    low, high = np.array(ends).T
    return 0.5 * (low + high), 0.5 * (high - low)


def _optimum(evidence: Evidence, start: Array, mean: Array, precision: Array, noise: float) -> Array:
    starts = np.stack([start, mean])
    weights = np.broadcast_to(evidence.weights, (2, len(evidence.log_loss)))
    theta, value = maximise(evidence, starts, np.stack([mean, mean]), precision, weights, noise, steps=30)
    return theta[np.argmin(value)]


def _noise_of(evidence: Evidence, theta: Array, precision: Array, noise: float) -> float:
    r = evidence.linearise(theta[None])[0][0]
    shared = information(evidence, theta, noise)
    used = float(np.trace(np.linalg.solve(shared + precision, shared)))
    squares = evidence.weights @ np.minimum(r * r, (WINSOR * noise) ** 2)
    total = float(np.sum(evidence.weights))
    return float(np.sqrt((NOISE_ROWS * NOISE**2 + squares) / (NOISE_ROWS + max(total - used, 0.0))))


def _normal(evidence: Evidence, theta: Array, population: _Population, noise: float) -> _Normal:
    shared = information(evidence, theta, noise)
    pull = (theta - population.mean) / population.between  # the prior's gradient, minus that of the runs
    return _Normal(shared, shared @ theta + pull)


def _estimate(
    normals: Sequence[_Normal], now: _Population, anchor: Array, width: Array, first: Array, rounds: int
) -> _Population:
    """EM: the mean from each table's marginal, the variance between tables from each table's posterior."""
    for _ in range(rounds):
        inverse = np.diag(1 / now.between)
        precision, centre = np.diag(1 / width**2), anchor / width**2
        posteriors = [np.linalg.inv(normal.information + inverse) for normal in normals]
        for normal, posterior in zip(normals, posteriors, strict=True):
            kept = normal.information @ posterior
            precision = precision + normal.information - kept @ normal.information
            centre = centre + normal.centre - kept @ normal.centre
        covariance = np.linalg.inv(precision)
        mean = covariance @ centre
        total = SPREAD_ROWS * first
        for normal, posterior in zip(normals, posteriors, strict=True):
            here = posterior @ (normal.centre + mean / now.between)
            total = total + np.diag(posterior) + (here - mean) ** 2
        now = _Population(mean, total / (SPREAD_ROWS + len(normals)), covariance)
    return now


def _over_tables(
    normals: Sequence[_Normal],
    population: _Population,
    anchor: Array,
    width: Array,
    first: Array,
    groups: Sequence[str],
    seed: int,
) -> Array:
    """Covariance (P, P) of the mean over bootstrap samples of the groups of tables, beyond the estimate's own."""
    names = list(dict.fromkeys(groups))
    if len(names) < 2:
        return np.zeros_like(population.covariance)
    rng = np.random.default_rng(seed)
    means = []
    for _ in range(BOOTSTRAP):
        drawn = rng.choice(len(names), len(names))
        some = [normals[k] for pick in drawn for k, group in enumerate(groups) if group == names[pick]]
        means.append(_estimate(some, population, anchor, width, first, rounds=1).mean)
    return np.cov(np.array(means).T)
