"""From a study's runs to its plan: every law fitted and scored, their ensemble asked for the best design."""

from dataclasses import dataclass

import polars as pl

from moelab.errors import InputError, MoelabError
from moelab.fitting import Comparison, compare
from moelab.fitting.compare import fit_with_holdout
from moelab.planning import Budget, Plan, Space, plan
from moelab.runs import RunRecord
from moelab.studies.config import FitStep, StudyConfig


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """The laws that could be fitted, ranked by held-out error, why others could not, and what they recommend."""

    table: pl.DataFrame
    comparison: Comparison
    skipped: dict[str, str]
    plan: Plan


def analyse(study: StudyConfig, records: list[RunRecord]) -> Analysis:
    """Fit and plan. Raises MoelabError where no law can be fitted to the runs that did not diverge."""
    rows = [record.row() for record in records if record.loss is not None]
    if not rows:
        raise MoelabError("study: every run diverged; try a lower learning rate")
    table = pl.DataFrame(rows, infer_schema_length=None)
    able, skipped = _able(table, study.fit)
    if not able:
        raise MoelabError("study: no law could be fitted: " + "; ".join(f"{k}: {v}" for k, v in skipped.items()))
    step = study.fit
    comparison = compare(table, able, holdout=step.holdout or None, bootstrap=step.bootstrap, seed=step.seed)
    return Analysis(table=table, comparison=comparison, skipped=skipped, plan=_plan(study, comparison, records))


def _able(table: pl.DataFrame, step: FitStep) -> tuple[list[str], dict[str, str]]:
    """The laws that the runs suffice for, also when the dearest are held out."""
    able, skipped = [], {}
    for law in step.laws:
        try:
            fit_with_holdout(table, law, holdout=step.holdout or None, bootstrap=0, starts=16)
            able.append(law)
        except InputError as error:
            skipped[law] = str(error)
    return able, skipped


def _plan(study: StudyConfig, comparison: Comparison, records: list[RunRecord]) -> Plan:
    """The best design for a multiple of the dearest run's compute, by the laws weighted by their held-out error."""
    dearest = max(record.train_flops for record in records)
    step = study.plan
    budget = Budget(flops=step.flops_times * dearest, max_params=step.max_params, max_tokens=step.max_tokens)
    weights = [comparison.weights[name] for name in comparison.fits]
    return plan(budget, list(comparison.fits.values()), Space.parse(step.space, "plan.space"), weights=weights)
