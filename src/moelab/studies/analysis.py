"""From a study's runs to its plan: every law fitted and scored, their ensemble asked for the best design."""

from dataclasses import dataclass

import polars as pl

from moelab.errors import MoelabError
from moelab.fitting import Comparison, compare
from moelab.planning import Budget, Plan, Space, plan
from moelab.runs import RunRecord
from moelab.studies.config import StudyConfig


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """The laws that could be fitted, ranked by held-out error (with the others' reasons), and what they recommend."""

    table: pl.DataFrame
    comparison: Comparison
    plan: Plan


def analyse(study: StudyConfig, records: list[RunRecord]) -> Analysis:
    """Fit and plan, with the runs that did not diverge. Raises InputError where no law can be fitted to them."""
    rows = [record.row() for record in records if record.loss is not None]
    if not rows:
        raise MoelabError("study: every run diverged; try a lower learning rate")
    table = pl.DataFrame(rows, infer_schema_length=None)
    step = study.fit
    comparison = compare(
        table,
        step.laws,
        holdout=step.holdout or None,
        holdout_optional=False,
        skip_unfit=True,
        bootstrap=step.bootstrap,
        seed=step.seed,
    )
    return Analysis(table=table, comparison=comparison, plan=_plan(study, comparison, records))


def _plan(study: StudyConfig, comparison: Comparison, records: list[RunRecord]) -> Plan:
    """The best design for a multiple of the dearest run's compute, by the laws weighted by their held-out error."""
    dearest = max(record.train_flops for record in records)
    step = study.plan
    budget = Budget(flops=step.flops_times * dearest, max_params=step.max_params, max_tokens=step.max_tokens)
    weights = [comparison.weights[name] for name in comparison.fits]
    return plan(budget, list(comparison.fits.values()), Space.parse(step.space, "plan.space"), weights=weights)
