"""How far a plan can be trusted, in one sentence that stands first: support of the laws, and agreement on the kind."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from moelab.planning.candidate import Candidate

FAR = 1.0
"""log10 distance outside every known fitted range from which a plan is an extrapolation (a factor of ten)."""

UNSUPPORTED = 3.0
"""log10 distance beyond which the runs give a prediction no support."""


@dataclass(frozen=True)
class Confidence:
    """`level` is supported, extrapolated or unsupported, by the least `distance` (log10) of the ensemble's laws from
    their runs (None: no range known). `kinds` are the laws whose own optimum is MoE and dense."""

    level: str
    distance: float | None
    kinds: dict[str, list[str]]

    @property
    def disagree(self) -> bool:
        """Whether some laws prefer MoE and others dense."""
        return all(self.kinds.values())

    @property
    def doubtful(self) -> bool:
        """Whether no percentage should stand beside the choice."""
        return self.disagree or self.level != "supported"

    @property
    def sentence(self) -> str:
        """What a reader must know before the recommendation; empty where there is nothing."""
        parts = []
        if self.level != "supported" and self.distance is not None:
            word = "No law supports this plan" if self.level == "unsupported" else "This plan is an extrapolation"
            parts.append(
                f"{word}: every law of the ensemble is used at least {10**self.distance:,.0f} times outside its runs."
            )
        if self.disagree:
            moe, dense = (", ".join(self.kinds[kind]) for kind in ("moe", "dense"))
            parts.append(f"The laws disagree on the kind of model: {moe} prefer MoE, {dense} dense.")
        return " ".join(parts)

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {"level": self.level, "distance": self.distance, "kinds": self.kinds, "sentence": self.sentence}


def confidence_of(best: Candidate, ensemble: list[str], choices: dict[str, Candidate]) -> Confidence:
    """The confidence in a recommended design, from its predictions and each law's own choice."""
    known = [
        prediction.extrapolation
        for law, prediction in best.loss.items()
        if law in ensemble and prediction.value is not None and prediction.extrapolation is not None
    ]
    distance = float(np.min(known)) if known else None
    level = "supported"
    if distance is not None and distance > FAR:
        level = "unsupported" if distance > UNSUPPORTED else "extrapolated"
    kinds: dict[str, list[str]] = {"moe": [], "dense": []}
    for law in ensemble:
        if law in choices:
            kinds["moe" if choices[law].is_moe else "dense"].append(law)
    return Confidence(level, distance, kinds)
