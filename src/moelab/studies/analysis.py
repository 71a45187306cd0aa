"""From a study's runs to its plan: every law fitted and scored, the best design by their ensemble."""

from dataclasses import dataclass

import polars as pl

from moelab.errors import InputError
from moelab.fitting import Comparison, compare_laws
from moelab.notebook import Shown
from moelab.planning import Budget, Plan, Space
from moelab.planning.plan import plan
from moelab.runs import RunRecord
from moelab.studies.config import FitStep, PlanStep, StudyConfig


@dataclass(frozen=True, kw_only=True, repr=False)
class Analysis(Shown):
    """The runs as a table; the laws fitted to them, ranked by held-out error (with the others' reasons), and the plan.

    `comparison` and `plan` are None where the study has none; `note` is the reason where no law could be fitted.
    """

    table: pl.DataFrame
    comparison: Comparison | None
    plan: Plan | None
    note: str | None = None


def analyse(study: StudyConfig, records: list[RunRecord]) -> Analysis:
    """Fit and plan, with the runs that did not diverge; at least one did not.

    Raises InputError where the plan needs a law and none can be fitted to them.
    """
    once = {record.run_id: record for record in records if record.loss is not None}
    table = pl.DataFrame([record.row() for record in once.values()], infer_schema_length=None)
    if study.fit is None:
        return Analysis(table=table, comparison=None, plan=None)
    try:
        comparison = _fit(study.fit, table)
    except InputError as error:
        if study.plan is not None:
            raise
        return Analysis(table=table, comparison=None, plan=None, note=str(error))
    planned = None if study.plan is None else _plan(study.plan, comparison, records)
    return Analysis(table=table, comparison=comparison, plan=planned)


def _fit(step: FitStep, table: pl.DataFrame) -> Comparison:
    return compare_laws(
        table,
        None if "all" in step.laws else step.laws,
        holdout=step.holdout or None,
        holdout_optional=False,
        skip_unfit=True,
        bootstrap=step.bootstrap,
        seed=step.seed,
        prior=step.prior,
    )


def _plan(step: PlanStep, comparison: Comparison, records: list[RunRecord]) -> Plan:
    """The best design for a multiple of the largest run's compute, by the laws weighted by their held-out error."""
    largest = max(record.train_flops for record in records)
    budget = Budget(flops=step.flops_times * largest, max_params=step.max_params, max_tokens=step.max_tokens)
    weights = [comparison.weights[name] for name in comparison.fits]
    return plan(budget, list(comparison.fits.values()), Space.parse(step.space, "plan.space"), weights=weights)
