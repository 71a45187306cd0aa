"""How well the runs of an experiment design match: exact FLOPs and parameters against their aims, group by group."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from moelab.architecture import ModelConfig, count_parameters
from moelab.experiments.base import EXPERTS
from moelab.runs import RunConfig, run_columns


@dataclass(frozen=True, kw_only=True)
class Match:
    """Runs that were meant to be equal in one column: the aim, the extremes, and the largest relative miss.

    `aim` is None where every run has an aim of its own (the miss is then each run's from its own). `spread` is the
    largest over the smallest, less one.
    """

    group: str
    column: str
    n_runs: int
    aim: float | None
    low: float
    high: float
    miss: float

    @property
    def spread(self) -> float:
        """(largest - smallest) / smallest."""
        return self.high / self.low - 1 if self.low else self.high - self.low

    @property
    def within(self) -> bool:
        """Whether no run is more than one per cent off."""
        return abs(self.miss) <= 0.01


def match_runs(configs: Sequence[RunConfig]) -> list[Match]:
    """A row per group of matched runs and column aimed at, in the order of the runs."""
    found: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for config in configs:
        group = config.labels.get("match")
        if group is None:
            continue
        columns = run_columns(config)
        for label, text in config.labels.items():
            if label.startswith("aim_"):
                column = label.removeprefix("aim_")
                reached = _REACHED[column](config) if column in _REACHED else float(columns[column])
                found.setdefault((group, column), []).append((float(text), reached))
    return [_match(group, column, pairs) for (group, column), pairs in found.items()]


def _params_dense(config: RunConfig) -> float:
    """Parameters without embeddings of the dense backbone, whose feed-forward the experts replaced."""
    dense = {key: value for key, value in config.model.to_dict().items() if key not in EXPERTS}
    return float(count_parameters(ModelConfig.parse(dense)).params_non_embedding)


def _tokens_per_param(config: RunConfig) -> float:
    columns = run_columns(config)
    return float(columns["tokens"] / columns["params_active"])


_REACHED: dict[str, Callable[[RunConfig], float]] = {
    "params_dense": _params_dense,
    "tokens_per_param": _tokens_per_param,
}
"""The reached value of each aim that is no column of a run."""


def _match(group: str, column: str, pairs: list[tuple[float, float]]) -> Match:
    aims, values = {aim for aim, _ in pairs}, [value for _, value in pairs]
    misses = [value / aim - 1 if aim else value - aim for aim, value in pairs]
    return Match(
        group=group,
        column=column,
        n_runs=len(pairs),
        aim=aims.pop() if len(aims) == 1 else None,
        low=min(values),
        high=max(values),
        miss=max(misses, key=abs),
    )
