"""What predictions and plans repeat of a fit that they use, beside its units: runs that its law does not describe,
and a hold-out that failed."""

from moelab.fitting.fitted import FittedLaw
from moelab.fitting.run_kinds import undescribed


def carried_notes(name: str, fitted: FittedLaw) -> list[str]:
    """Lines on a fit called `name`, for what is predicted or planned with it."""
    failure = "" if fitted.holdout is None else fitted.holdout.failure(fitted.law.kind)
    return [f"the fit of {name}: {text}" for text in (undescribed(fitted.law, fitted.kinds), failure) if text]
