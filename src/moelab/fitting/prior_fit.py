"""Fit a law whose prior is known: a user's few runs with what other tables found, and what each coefficient owes them.

The noise of the runs is estimated with the coefficients. Bootstrap draws resample the runs and move the prior's mean by
a draw of the prior, so that coefficients the runs do not identify keep the prior's width.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moelab.errors import InputError
from moelab.fitting.fitted import FittedLaw
from moelab.fitting.objective import Objective
from moelab.fitting.observations import Observations
from moelab.fitting.owed import owed
from moelab.fitting.parameters import known_name
from moelab.fitting.point_fit import error_measures, predicted_losses
from moelab.fitting.posterior import Evidence, information, maximise
from moelab.fitting.prior import SCALES, Prior, limits, to_coefficients
from moelab.fitting.replicates import Progress, resample
from moelab.fitting.text_units import BITS_PER_BYTE
from moelab.laws import Law

Array = NDArray[Any]
FEWEST = 3
STARTS = 16
"""Starts: the prior's mean and draws of it."""
ROUNDS, WINSOR = 4, 2.5
"""Rounds of noise and coefficients in turn; residuals count for the noise up to so many standard deviations."""
FAR = 0.001
"""Share of tables like those of the prior that lie beyond the distance from which it does not fit the runs."""
DRAWN = 128
"""Replicates between two reports of progress."""


@dataclass(frozen=True, eq=False)
class Posterior:
    """The most probable coordinates (P,), their value, the noise, draws (B, P) of coefficients, and per coefficient
    the share of its variance that the prior left as it was: 1 is owed to the prior alone, 0 to the runs."""

    evidence: Evidence
    theta: Array
    value: float
    noise: float
    draws: Array
    share: dict[str, float]
    free: float
    agreeing: int


def fit_with_prior(
    data: Observations,
    law: Law,
    prior: Prior,
    objective: Objective,
    fix: Mapping[str, float],
    bootstrap: int,
    seed: int = 0,
    progress: Progress | None = None,
) -> FittedLaw:
    """The most probable law with its draws; `prior` of the result holds the prior's name, hash and share."""
    shipped, prior = prior, prior.of_text(data.bytes_per_token)
    found = posterior_of(data, law, prior, objective, fix, bootstrap, seed, progress)
    coefficients = {name: float(v[0, 0]) for name, v in to_coefficients(law, found.theta[None]).items()}
    held = {known_name(law, name, "fix"): float(value) for name, value in fix.items()}
    predicted = predicted_losses(law, coefficients, data, held)
    evidence = found.evidence
    near = np.minimum(found.theta - evidence.low, evidence.high - found.theta) < 1e-6 * (1 + np.abs(found.theta))
    return FittedLaw(
        law=law,
        n_runs=len(data),
        coefficients=coefficients,
        draws=found.draws,
        ranges={name: (float(v.min()), float(v.max())) for name, v in data.variables.items()},
        objective=found.value,
        objective_kind=f"{objective}, with a prior",
        starts=STARTS + 1,
        starts_agreeing=found.agreeing,
        at_bound=tuple(name for name, at in zip(law.coefficients, near, strict=True) if at and name not in held),
        condition=_condition(evidence, found.theta),
        held=held,
        in_sample=error_measures(data.measured, predicted),
        measured=data.measured,
        predicted=predicted,
        labels=tuple(data.labels.tolist()),
        kinds=tuple(data.kinds.tolist()),
        free=max(1, min(round(found.free), len(data) - 1)),
        cpu_seconds=0.0,
        notes=(_owed(prior, found.share), *_units(shipped, prior, data), *_far(prior, found, list(held))),
        seed_noise=data.seed_noise(),
        prior={"name": prior.name, "sha256": prior.sha256, "share": found.share},
        weights=data.uneven_weights,
    )


def _owed(prior: Prior, share: Mapping[str, float]) -> str:
    most = owed(share)
    mostly = f"; {', '.join(most)} come mostly from it" if most else ""
    return f"fitted with the prior {prior.name!r}{mostly} (--prior none fits without)"


def _units(usual: Prior, here: Prior, data: Observations) -> list[str]:
    """At which bytes per token the prior's floor and scales are taken."""
    if usual.bytes_per_token is None:
        return []
    before = f"{usual.bytes_per_token:.3g}"
    if here is usual:
        without = data.units_note or f"without a column of bits per byte, tokens are taken to hold {before} bytes"
        return [f"{without}; the prior's floor and scales depend on it"]
    if data.bytes_per_token == BITS_PER_BYTE:
        return [f"the prior's floor and scales were converted from nats per token of {before} bytes to bits per byte"]
    after = f"{data.bytes_per_token:.3g}"
    return [f"the prior's floor and scales were converted from {before} to {after} bytes per token (by bits per byte)"]


def _far(prior: Prior, found: Posterior, held: list[str]) -> list[str]:
    """A note where the most probable coefficients lie farther from the prior than its tables do: the squared distance,
    given the coefficients that are held, against chi-squared of as many degrees of freedom as the runs decide."""
    from scipy.special import chdtri

    off, at = found.theta - prior.mean, [prior.coefficients.index(name) for name in held]
    parts = (slice(None), at) if at else (slice(None),)
    whole, *given = (float(off[k] @ np.linalg.solve(prior.covariance[k][:, k], off[k])) for k in parts)
    distance, limit = whole - sum(given), float(chdtri(max(found.free, 1.0), FAR))
    if distance <= limit:
        return []
    spread = np.abs(off) / np.sqrt(np.diag(prior.covariance))
    most = [prior.coefficients[k] for k in np.argsort(-spread, kind="stable") if prior.coefficients[k] not in held][:3]
    fixed = f"{', '.join(held)} held by --fix may be the reason; else " if held else ""
    return [
        f"the runs lie farther from the prior than its tables do (squared distance {distance:.0f}, 99.9 % point "
        f"{limit:.0f}; most in {', '.join(most)}): {fixed}check the units of loss, parameters and tokens, and the "
        "tokenizer; --prior none fits without"
    ]


def _condition(evidence: Evidence, theta: Array) -> float:
    _, jacobian = evidence.linearise(theta[None])
    values = np.linalg.svd(np.sqrt(evidence.weights)[:, None] * jacobian[0], compute_uv=False)
    return float(values[0] / values[-1]) if values[-1] > 0 and len(values) == len(theta) else float("inf")


def posterior_of(
    data: Observations,
    law: Law,
    prior: Prior,
    objective: Objective,
    fix: Mapping[str, float],
    bootstrap: int,
    seed: int = 0,
    progress: Progress | None = None,
) -> Posterior:
    """The posterior of a law's coefficients. Raises InputError for too few rows and for scales that are to be held."""
    if len(data) < FEWEST:
        raise InputError(f"{law.id}: {len(data)} rows are too few; needs {FEWEST}")
    evidence = evidence_of(data, law, objective, fix)
    precision = np.linalg.inv(prior.covariance)
    starts = np.vstack([prior.mean, prior.draw(STARTS - 1, seed)])
    theta, noise, values = _in_turn(evidence, prior, precision, starts)
    shared = information(evidence, theta, noise)
    posterior = np.linalg.inv(shared + precision)
    owed = np.clip(np.diag(posterior) / np.diag(prior.covariance), 0.0, 1.0)
    held = {known_name(law, name, "fix") for name in fix}
    share = {name: float(v) for name, v in zip(law.coefficients, owed, strict=True) if name not in held}
    return Posterior(
        evidence=evidence,
        theta=theta,
        value=float(values.min()),
        noise=noise,
        draws=_draws(evidence, prior, precision, theta, noise, data, bootstrap, seed, progress),
        share=share,
        free=float(np.sum(shared * posterior)),
        agreeing=int(np.sum(values <= values.min() + 1e-3)),
    )


def evidence_of(data: Observations, law: Law, objective: Objective, fix: Mapping[str, float] | None = None) -> Evidence:
    """The runs with the limits of the coordinates; a coefficient that is held has one value."""
    low, high = limits(law)
    for name, value in (fix or {}).items():
        name = known_name(law, name, "fix")
        if name in SCALES:
            raise InputError(f"fix: {name} belongs to the table; hold it with --prior none")
        lowest, highest = law.bounds.get(name, (0.0 if name in law.positive else -np.inf, np.inf))
        if not lowest <= value <= highest or (name in law.positive and value <= 0):
            raise InputError(f"fix: {name} must lie in {lowest:g} to {highest:g} in {law.id}, got {value:g}")
        at = law.coefficients.index(name)
        low[at] = high[at] = np.log(value) if name in law.positive else value
    variables = {name: data.variables[name] for name in law.variables}
    return Evidence(law, variables, np.log(data.measured), data.weights, objective, low, high)


def _in_turn(evidence: Evidence, prior: Prior, precision: Array, starts: Array) -> tuple[Array, float, Array]:
    """Coordinates and noise in turn: the best of the starts, the noise, and the value that each start reached."""
    usual, freedom = prior.noise
    noise = usual
    ones = np.broadcast_to(evidence.weights, (len(starts), len(evidence.log_loss)))
    mean = np.broadcast_to(prior.mean, starts.shape)
    theta, values = maximise(evidence, starts, mean, precision, ones, noise)
    best = theta[np.argmin(values)][None]
    for _ in range(ROUNDS):
        noise = _noise(evidence, best[0], precision, noise, usual, freedom)
        best = maximise(evidence, best, mean[:1], precision, ones[:1], noise)[0]
    ends = np.vstack([best, theta])
    many, weights = mean[:1].repeat(len(ends), 0), ones[:1].repeat(len(ends), 0)
    final, values = maximise(evidence, ends, many, precision, weights, noise)
    return final[np.argmin(values)], noise, values


def _noise(evidence: Evidence, theta: Array, precision: Array, noise: float, usual: float, freedom: float) -> float:
    """The spread of log losses about the law: the runs' residuals with `freedom` of the usual size beside them."""
    r = evidence.linearise(theta[None])[0][0]
    shared = information(evidence, theta, noise)
    used = float(np.trace(np.linalg.solve(shared + precision, shared)))
    squares = np.minimum(r * r, (WINSOR * noise) ** 2)
    weights = evidence.weights / evidence.weights.mean()
    return float(np.sqrt((freedom * usual**2 + np.sum(weights * squares)) / (freedom + max(len(r) - used, 0.0))))


def _draws(
    evidence: Evidence,
    prior: Prior,
    precision: Array,
    theta: Array,
    noise: float,
    data: Observations,
    count: int,
    seed: int,
    progress: Progress | None,
) -> Array:
    law = evidence.law
    if not count:
        return np.empty((0, len(law.coefficients)))
    several = len(data) if data.groups is None else len(np.unique(data.groups))
    times = resample(data, count, seed, 0) if several > 1 else np.ones((count, len(data)))
    weights = times * evidence.weights
    means = prior.draw(count, seed + 1)
    parts = []
    for first in range(0, count, DRAWN):
        rows = slice(first, first + DRAWN)
        start = np.broadcast_to(theta, means[rows].shape)
        parts.append(maximise(evidence, start, means[rows], precision, weights[rows], noise, steps=25)[0])
        if progress is not None:
            progress(min(first + DRAWN, count) / count)
    columns = to_coefficients(law, np.concatenate(parts))
    return np.concatenate([columns[name] for name in law.coefficients], axis=1)
