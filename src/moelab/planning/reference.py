"""The least loss under compute and data alone: what excess compute is over where loss is balanced against cost."""

from dataclasses import dataclass

from moelab.planning.coverage import Coverage
from moelab.planning.curve import Curve
from moelab.planning.ensemble import Member


@dataclass(frozen=True)
class Reference:
    """The ensemble with its optima against compute, over all designs that compute and data allow.

    `top_share` is the best utilisation (None where compute is one number), `least` the least log(C/C') of the ensemble,
    `least_with_granularity` the same with what laws of granularity add, and `unresolved` the excess of compute, as a
    share, below which no design is known to be behind, by what `source` names (`balance.unresolved`).
    """

    ensemble: tuple[Member, ...]
    curves: tuple[Curve, ...]
    coverage: Coverage | None
    top_share: float | None
    least: float
    least_with_granularity: float
    unresolved: float
    source: str
