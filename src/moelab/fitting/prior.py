"""What other tables found about a law's coefficients: a normal distribution in coordinates that tables share.

A coordinate is the logarithm of a positive coefficient and any other coefficient itself. The two scales are taken where
tables can be compared: A's coordinate is the logarithm of the size term at 1e8 parameters, B's that of the data term at
1e10 tokens. `moelab fit --prior FILE` reads what `benchmarks/prior.py` writes.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moelab.errors import InputError
from moelab.files import parse_json, read_text, sha256_json
from moelab.laws import Law
from moelab.laws.moelab2026 import D_REFERENCE, N_REFERENCE

Array = NDArray[Any]
SCALES = {"A": ("alpha", float(np.log(N_REFERENCE))), "B": ("beta", float(np.log(D_REFERENCE)))}
"""Scale -> its exponent and the logarithm of the reference: A becomes A / N_REFERENCE^alpha, B likewise."""
TABLE_LEVELS = ("E_0", "A", "B")
"""What a table's losses scale with: the floor and the two scales."""
NONE = "none"


@dataclass(frozen=True, eq=False)
class Prior:
    """Mean (P,) and covariance (P, P) of the coordinates of `coefficients`.

    `noise` is the usual spread of log losses about the law and the degrees of freedom that this is worth; `drift` the
    usual relative error for each e-fold of compute beyond the fitted runs, and how many splits of a table it is worth.
    `sources` are the tables it was made from, each with its hash and licence. Floor and scales are nats per token of a
    tokenizer with `bytes_per_token`.
    """

    name: str
    law: str
    coefficients: tuple[str, ...]
    mean: Array
    covariance: Array
    noise: tuple[float, float]
    sources: tuple[dict[str, Any], ...]
    drift: tuple[float, float] = (0.0, 0.0)
    bytes_per_token: float | None = None
    part_of: str = ""

    @property
    def sha256(self) -> str:
        """The hash of its content, which a fit file names; for the part of a law, that of the whole."""
        return self.part_of or sha256_json(self.to_json())

    def to_json(self) -> dict[str, Any]:
        """Plain data; `Prior.from_json` reads it back."""
        return {
            "name": self.name,
            "law": self.law,
            "coefficients": list(self.coefficients),
            "mean": self.mean.tolist(),
            "covariance": self.covariance.tolist(),
            "noise": {"rel": self.noise[0], "degrees_of_freedom": self.noise[1]},
            "drift": {"rel_per_efold": self.drift[0], "splits": self.drift[1]},
            "bytes_per_token": self.bytes_per_token,
            "sources": list(self.sources),
        }

    @classmethod
    def from_json(cls, value: Any, where: str) -> "Prior":
        """The inverse of `to_json`. Raises InputError naming what is wrong."""
        try:
            names = tuple(str(name) for name in value["coefficients"])
            mean = np.asarray(value["mean"], float).reshape(len(names))
            covariance = np.asarray(value["covariance"], float).reshape(len(names), len(names))
            noise = (float(value["noise"]["rel"]), float(value["noise"]["degrees_of_freedom"]))
            about = value.get("drift", {"rel_per_efold": 0.0, "splits": 0.0})
            drift = (float(about["rel_per_efold"]), float(about["splits"]))
            size = value.get("bytes_per_token")
            more: dict[str, Any] = {"drift": drift, "bytes_per_token": None if size is None else float(size)}
            sources = tuple(value["sources"])
            prior = cls(str(value["name"]), str(value["law"]), names, mean, covariance, noise, sources, **more)
        except KeyError as error:
            raise InputError(f"prior: {where}: the key {error.args[0]!r} is missing") from None
        except (TypeError, ValueError) as error:
            raise InputError(f"prior: {where}: {error}") from None
        if not np.isfinite(mean).all() or not _positive_definite(covariance):
            raise InputError(f"prior: {where}: expected finite means and a positive definite covariance")
        return prior

    def is_for(self, law_id: str) -> bool:
        """Whether this is a prior of the law or of one that it is a variant of."""
        return self.law.split("-")[0] == law_id.split("-")[0]

    def of(self, law: Law) -> "Prior":
        """This prior in the law's order of coefficients. Raises InputError where it lacks one."""
        missing = [name for name in law.coefficients if name not in self.coefficients]
        if missing:
            raise InputError(f"prior: {self.name} has no coefficient {', '.join(missing)} of {law.id}")
        at = [self.coefficients.index(name) for name in law.coefficients]
        covariance = self.covariance[np.ix_(at, at)]
        chosen: dict[str, Any] = {"coefficients": law.coefficients, "mean": self.mean[at], "covariance": covariance}
        return replace(self, law=law.id, part_of=self.sha256, **chosen)

    def of_text(self, bytes_per_token: float | None) -> "Prior":
        """This prior for a table whose tokens hold so many bytes: a token of half the text has half the loss, so floor
        and scales shift by the logarithm of the ratio. As it is where either number is unknown."""
        if bytes_per_token is None or self.bytes_per_token is None:
            return self
        mean = self.mean.copy()
        mean[[name in TABLE_LEVELS for name in self.coefficients]] += np.log(bytes_per_token / self.bytes_per_token)
        return replace(self, mean=mean, bytes_per_token=bytes_per_token, part_of=self.sha256)

    def draw(self, count: int, seed: int = 0) -> Array:
        """(count, P): coordinates of laws that this prior holds possible."""
        return np.random.default_rng(seed).multivariate_normal(self.mean, self.covariance, count, method="cholesky")

    def draw_coefficients(self, law: Law, count: int, seed: int = 0) -> dict[str, Array]:
        """Name -> (count, 1): laws that this prior holds possible, within the law's bounds."""
        low, high = limits(law)
        return to_coefficients(law, np.clip(self.of(law).draw(count, seed), low, high))


def _positive_definite(matrix: Array) -> bool:
    try:
        np.linalg.cholesky(matrix)
    except np.linalg.LinAlgError:
        return False
    return bool(np.allclose(matrix, matrix.T, rtol=1e-9, atol=1e-12))


@cache
def shipped(law_id: str) -> Prior | None:
    """The prior that ships for a law and its variants, or None."""
    place = files("moelab.fitting").joinpath("priors", f"{law_id.split('-')[0]}.json")
    return Prior.from_json(json.loads(place.read_text(encoding="utf-8")), place.name) if place.is_file() else None


def find_prior(law: Law, given: "str | Path | Prior | None") -> Prior | None:
    """The prior of a fit: None is the shipped one, `none` is none, else a Prior or its file. Raises InputError."""
    if given is None:
        prior = shipped(law.id)
        return None if prior is None else prior.of(law)
    if not isinstance(given, Prior) and str(given) == NONE:
        return None
    prior = read_prior(given)
    if not prior.is_for(law.id):
        raise InputError(f"prior: {prior.name} is for {prior.law}, not for {law.id}")
    return prior.of(law)


def read_prior(given: "str | Path | Prior") -> Prior:
    """A prior, or that of a file. Raises InputError naming what is wrong with it."""
    if isinstance(given, Prior):
        return given
    return Prior.from_json(parse_json(read_text(Path(given), "prior"), str(given)), str(given))


def limits(law: Law) -> tuple[Array, Array]:
    """The lowest and highest coordinates (P,) that the law's bounds allow; the scales have none."""
    low, high = np.full(len(law.coefficients), -np.inf), np.full(len(law.coefficients), np.inf)
    for at, name in enumerate(law.coefficients):
        if name in SCALES or name not in law.bounds:
            continue
        ends = law.bounds[name]
        low[at], high[at] = np.log(ends) if name in law.positive else ends
        low[at] += 1e-9 * (name == "E_start")  # saturation divides by E_start - 1 in the limit
    return low, high


def to_coordinates(law: Law, coefficients: Mapping[str, Any]) -> Array:
    """Coefficients by name, each (B,) or a number, as coordinates (B, P) in the law's order."""
    columns = {
        name: np.log(np.atleast_1d(coefficients[name])) if name in law.positive else np.atleast_1d(coefficients[name])
        for name in law.coefficients
    }
    for scale, (exponent, reference) in SCALES.items():
        columns[scale] = columns[scale] - np.exp(columns[exponent]) * reference
    return np.stack(np.broadcast_arrays(*(columns[name] for name in law.coefficients)), axis=-1)


def to_coefficients(law: Law, coordinates: Array) -> dict[str, Array]:
    """The inverse of `to_coordinates`: (B, P) to name -> (B, 1), ready to broadcast against n runs."""
    columns = {name: coordinates[:, k, None] for k, name in enumerate(law.coefficients)}
    for scale, (exponent, reference) in SCALES.items():
        columns[scale] = columns[scale] + np.exp(columns[exponent]) * reference
    return {name: np.exp(values) if name in law.positive else values for name, values in columns.items()}


def by_coordinates(law: Law, gradient: Mapping[str, Array], coefficients: Mapping[str, Array], loss: Array) -> Array:
    """d log(loss) / d coordinates, (B, n, P), from the law's gradient by coefficient; n is the last axis in memory."""
    scaled = {name: gradient[name] * (coefficients[name] if name in law.positive else 1.0) for name in law.coefficients}
    for scale, (exponent, reference) in SCALES.items():
        scaled[exponent] = scaled[exponent] + scaled[scale] * coefficients[exponent] * reference
    inverse = 1 / loss
    found = np.empty((len(loss), len(law.coefficients), loss.shape[1]), dtype=np.result_type(loss, *scaled.values()))
    for at, name in enumerate(law.coefficients):
        np.multiply(scaled[name], inverse, out=found[:, at])
    return found.transpose(0, 2, 1)
