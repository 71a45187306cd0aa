"""How much two runs differ by their seed alone."""

import math
import statistics
from dataclasses import dataclass

from moelab.studies.stages import Trained, each_once, same_design


@dataclass(frozen=True, kw_only=True)
class SeedNoise:
    """Standard deviation of the loss between runs that differ in the seed alone, from `freedom` degrees of freedom."""

    deviation: float
    freedom: int

    def spread(self, seeds: int = 1, level: float = 0.8) -> float:
        """Half the interval of a difference of two designs trained with `seeds` seeds each (Student's t)."""
        return self.bound(seeds, seeds, level)

    def bound(self, seeds: int, others: int, level: float) -> float:
        """The same for designs trained with different numbers of seeds."""
        from scipy.stats import t

        return float(t.ppf((1 + level) / 2, self.freedom)) * self.deviation * math.sqrt(1 / seeds + 1 / others)


def seed_noise(trained: list[Trained]) -> SeedNoise | None:
    """The noise pooled over every design that was repeated; None without replicates."""
    groups: dict[str, list[float]] = {}
    for config, record in each_once(trained):
        if record.loss is not None:
            groups.setdefault(same_design(config), []).append(record.loss)
    repeated = [losses for losses in groups.values() if len(losses) > 1]
    if not repeated:
        return None
    freedom = sum(len(losses) - 1 for losses in repeated)
    squares = sum(statistics.variance(losses) * (len(losses) - 1) for losses in repeated)
    return SeedNoise(deviation=math.sqrt(squares / freedom), freedom=freedom)
