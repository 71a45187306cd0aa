"""The results of a finished study, for the report, for JSON and for Python."""

from dataclasses import asdict, dataclass, field
from typing import Any

from moelab.experiments import Match, match_runs
from moelab.fitting.fit_file import fit_to_json
from moelab.notebook import Shown, html_table, short_repr
from moelab.planning import Plan
from moelab.studies.analysis import Analysis
from moelab.studies.config import StudyConfig
from moelab.studies.findings import Finding
from moelab.studies.folder import StudyFolder
from moelab.studies.seeds import SeedNoise, Trained, each_once
from moelab.studies.stages import StageOutcome
from moelab.studies.training import SweepOutcome
from moelab.studies.verify import Verdict, Verified


@dataclass(frozen=True, kw_only=True, repr=False)
class StudyOutcome(Shown):
    """The results of a study."""

    study: StudyConfig
    folder: StudyFolder
    sweep: SweepOutcome | None
    stages: list[StageOutcome]
    trained: list[Trained]
    noise: SeedNoise | None
    findings: list[Finding]
    analysis: Analysis
    verified: list[Verified]
    verdict: Verdict | None
    answer: list[str]
    seconds: float
    failed: dict[str, str] = field(default_factory=dict)
    """Runs that could not be trained and were left out, with the reasons."""

    @property
    def plan(self) -> Plan | None:
        """The plan of the fitted laws; None where the study plans nothing."""
        return self.analysis.plan

    @property
    def every(self) -> list[Trained]:
        """The runs of the stages, then the study's own."""
        return [*(pair for stage in self.stages for pair in stage.trained), *self.trained]

    @property
    def warnings(self) -> list[str]:
        """Runs that failed, diverged or miss their FLOPs, a rule out of range, the plan's but for learning rates."""
        planned = [] if self.plan is None else self.plan.warnings
        left_out = [f"run {name} failed and is left out: {reason}" for name, reason in self.failed.items()]
        left_out += [
            f"run {config.name} diverged at step {record.stopped_at} and is left out"
            for config, record in self.every
            if record.status == "diverged"
        ]
        rule = self.study.learning_rate
        ruled = [] if rule is None else rule.warnings([config for config, _ in self.trained])
        missed = [
            f"{each.group}: the training FLOPs are up to {each.miss:+.1%} off their aim"
            for each in self.matches
            if each.column == "train_flops" and not each.within
        ]
        return left_out + missed + ruled + [text for text in planned if not text.startswith("learning rate")]

    @property
    def unfitted(self) -> list[str]:
        """The laws that could not be fitted, with the reasons."""
        if self.analysis.note is not None:
            return [f"no law was fitted: {self.analysis.note}"]
        comparison = self.analysis.comparison
        skipped = {} if comparison is None else comparison.skipped
        return [f"{name} was not fitted: {reason}" for name, reason in skipped.items()]

    @property
    def matches(self) -> list[Match]:
        """How well the runs of equal aims match."""
        return match_runs([config for config, _ in self.every])

    def __repr__(self) -> str:
        answer = self.answer[0] if self.answer else ""
        runs = len(each_once(self.trained))
        return short_repr(self, study=self.study.name, runs=runs, failed=len(self.failed), answer=answer)

    def _repr_html_(self) -> str:
        columns = ("name", "kind", "params_active", "params_total", "tokens", "train_flops", "loss")
        rows = [[getattr(record, name) for name in columns] for _, record in self.trained]
        return html_table(columns, rows, title=self.study.title, note=" ".join(self.answer))

    def to_dict(self) -> dict[str, Any]:
        """Plain data: what `moelab study --json` prints."""
        comparison = self.analysis.comparison
        return {
            "study": self.study.name,
            "answer": self.answer,
            "n_runs": len(each_once(self.trained)),
            "failed": self.failed,
            "diverged": [config.run_id for config, record in self.every if record.status == "diverged"],
            "seed_noise": None if self.noise is None else self.noise.deviation,
            "sweep": None if self.sweep is None else {"field": self.sweep.field, "chosen": self.sweep.chosen},
            "stages": {each.stage.name: each.chosen for each in self.stages},
            "findings": {each.name: each.data for each in self.findings},
            "matching": [asdict(each) | {"spread": each.spread} for each in self.matches],
            "fits": {name: fit_to_json(fitted, draws=False) for name, fitted in comparison.fits.items()}
            if comparison
            else {},
            "unfitted": self.unfitted,
            "weights": comparison.weights if comparison else {},
            "skipped": comparison.skipped if comparison else {},
            "plan": None if self.plan is None else self.plan.to_dict(),
            "verified": [each.to_dict() for each in self.verified],
            "report": str(self.folder.report),
            "seconds": self.seconds,
        }
