"""How far a plan can be trusted, in one sentence that stands first: support of the laws, and agreement on the kind."""

import math
from dataclasses import dataclass, field
from typing import Any

from moelab.planning.candidate import Candidate
from moelab.quantities import format_number

FAR = 1.0
"""log10 distance outside every known fitted range from which a plan is an extrapolation (a factor of ten)."""

UNSUPPORTED = 3.0
"""log10 distance beyond which the runs give a prediction no support."""


MOST_DISTANCE = 12.0
"""log10 distance that is printed at most."""

LEAST_RATIO, MOST_RATIO = 0.5, 2e4
"""Tokens per active parameter beyond which a plan is doubtful: a factor of two beyond 1 to 10,000. Released models of
the catalogue saw 38 (Llama 3.1 405B) to 10,700 (Qwen3-30B-A3B)."""


@dataclass(frozen=True)
class Confidence:
    """`level` is supported, extrapolated or unsupported, by the least `distance` (log10) of the ensemble's laws from
    their runs (None: no range known). `kinds` are the laws whose own optimum is MoE and dense, `unknown` those of the
    ensemble whose range is not known, and `ratio` the design's tokens per active parameter. `variable` is the one that
    the distance is of, and `compute` the log10 of the training FLOPs over those of the largest run; None: not known."""

    level: str
    distance: float | None
    kinds: dict[str, list[str]]
    unknown: list[str] = field(default_factory=list)
    ratio: float | None = None
    variable: str | None = None
    compute: float | None = None

    @property
    def disagree(self) -> bool:
        """Whether some laws prefer MoE and others dense."""
        return all(self.kinds.values())

    @property
    def doubtful(self) -> bool:
        """Whether no percentage should stand beside the choice."""
        return self.disagree or self.level != "supported" or self.distance is None or bool(self.out_of_range)

    @property
    def meaningless(self) -> bool:
        """Whether the runs give the predictions no support, so that no share of compute may be printed."""
        return self.level == "unsupported"

    @property
    def out_of_range(self) -> str:
        """The tokens per active parameter where released models are far from them, in a sentence; else empty."""
        if self.ratio is None or LEAST_RATIO <= self.ratio <= MOST_RATIO:
            return ""
        given = f"{self.ratio:.2g}" if self.ratio < 1 else format_number(self.ratio)
        return f"This plan is out of range: {given} tokens per active parameter, where released models saw 38 to 10.7K."

    @property
    def sentence(self) -> str:
        """What a reader must know before the recommendation; empty where there is nothing."""
        parts = []
        if self.distance is None and self.unknown:
            laws = ", ".join(self.unknown)
            parts.append(f"How far this plan lies outside the runs is not known: no range is published for {laws}.")
        elif self.level != "supported" and self.distance is not None:
            word = "No law supports this plan" if self.level == "unsupported" else "This plan is an extrapolation"
            which = "every law of the ensemble whose range is known" if self.unknown else "every law of the ensemble"
            of = "" if self.variable is None else f" in {self.variable}"
            parts.append(f"{word}: {which} is used at least {_times(self.distance)} times outside its runs{of}.")
            if self.compute is not None and self.compute > 0:
                factor = format_number(10 ** min(self.compute, MOST_DISTANCE), 3)
                parts.append(f"Its compute is {factor} times that of the largest run.")
        if self.out_of_range:
            parts.append(self.out_of_range)
        if self.disagree:
            moe, dense = (", ".join(self.kinds[kind]) for kind in ("moe", "dense"))
            parts.append(f"The laws disagree on the kind of model: {moe} prefer MoE, {dense} dense.")
        return " ".join(parts)

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "level": self.level,
            "distance": self.distance,
            "kinds": self.kinds,
            "sentence": self.sentence,
            "range_unknown": self.unknown,
            "tokens_per_active": self.ratio,
            "variable": self.variable,
            "beyond_compute": self.compute,
        }


def _times(distance: float) -> str:
    """The factor of a log10 distance, rounded down so that "at least" holds."""
    return f"{math.floor(10 ** min(distance, MOST_DISTANCE) * (1 + 1e-9)):,}"


def confidence_of(best: Candidate, ensemble: list[str], choices: dict[str, Candidate]) -> Confidence:
    """The confidence in a recommended design, from its predictions and each law's own choice."""
    used = [law for law in ensemble if law in best.loss and best.loss[law].value is not None]
    distances = {law: best.loss[law].extrapolation for law in used}
    known = [distance for distance in distances.values() if distance is not None]
    unknown = [law for law, distance in distances.items() if distance is None]
    distance = min(known) if known else None
    variable = next((best.loss[law].farthest for law in used if distances[law] == distance), None)
    beyond = [value for law in used if (value := best.loss[law].beyond_compute) is not None]
    level = "supported"
    if distance is not None and distance > FAR:
        level = "unsupported" if distance > UNSUPPORTED else "extrapolated"
    kinds: dict[str, list[str]] = {"moe": [], "dense": []}
    for law in ensemble:
        if law in choices:
            kinds["moe" if choices[law].is_moe else "dense"].append(law)
    ratio = best.tokens / best.params_active
    return Confidence(level, distance, kinds, unknown, ratio, variable, min(beyond) if beyond else None)
