"""What predictions and plans repeat of a fit that they use, beside its units: runs that its law does not describe."""

from moelab.fitting.fitted import FittedLaw
from moelab.fitting.run_kinds import undescribed


def carried_notes(name: str, fitted: FittedLaw) -> list[str]:
    """Lines on a fit called `name`, for what is predicted or planned with it."""
    text = undescribed(fitted.law, fitted.kinds)
    return [f"the fit of {name}: {text}"] if text else []
