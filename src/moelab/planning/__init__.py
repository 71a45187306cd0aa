"""From a budget, laws and serving to the best architectures, their trade-offs and uncertainty. Needs no torch."""

from moelab.planning.budget import Budget
from moelab.planning.candidate import Candidate, Interval, Prediction
from moelab.planning.result import Plan
from moelab.planning.space import Space

__all__ = ["Budget", "Candidate", "Interval", "Plan", "Prediction", "Space"]
