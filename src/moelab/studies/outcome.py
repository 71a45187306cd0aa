"""Everything a finished study found, for the report, for JSON and for Python."""

from dataclasses import dataclass
from typing import Any

from moelab.planning import Plan
from moelab.runs import RunConfig, RunRecord
from moelab.studies.analysis import Analysis
from moelab.studies.config import StudyConfig
from moelab.studies.folder import StudyFolder
from moelab.studies.training import SeedNoise, SweepOutcome
from moelab.studies.verify import Verdict, Verified


@dataclass(frozen=True, kw_only=True)
class StudyOutcome:
    """Everything a study found."""

    study: StudyConfig
    folder: StudyFolder
    sweep: SweepOutcome | None
    trained: list[tuple[RunConfig, RunRecord]]
    noise: SeedNoise | None
    analysis: Analysis
    verified: list[Verified]
    verdict: Verdict | None
    answer: list[str]
    seconds: float

    @property
    def plan(self) -> Plan:
        """What the fitted laws recommend."""
        return self.analysis.plan

    @property
    def warnings(self) -> list[str]:
        """The plan's, except those on learning-rate rules: a study trains with its own rate."""
        return [text for text in self.plan.warnings if not text.startswith("learning rate")]

    def to_dict(self) -> dict[str, Any]:
        """Plain data: what `moelab study --json` prints."""
        return {
            "study": self.study.name,
            "answer": self.answer,
            "n_runs": len(self.trained),
            "seed_noise": None if self.noise is None else self.noise.deviation,
            "sweep": None if self.sweep is None else {"field": self.sweep.field, "chosen": self.sweep.chosen},
            "fits": {name: fitted.to_json(draws=False) for name, fitted in self.analysis.comparison.fits.items()},
            "weights": self.analysis.comparison.weights,
            "skipped": self.analysis.comparison.skipped,
            "plan": self.plan.to_dict(),
            "verified": [each.to_dict() for each in self.verified],
            "report": str(self.folder.report),
            "seconds": self.seconds,
        }
