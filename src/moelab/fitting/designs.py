"""Designs as a law's variables: checked on the way in; the predictions must be finite."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moelab.errors import InputError
from moelab.fitting.blanks import zero_as_dense
from moelab.fitting.checks import check_variable, numbers
from moelab.fitting.columns import check_counts, variables
from moelab.laws import Law

Array = NDArray[Any]
GIVE = "give it by name, --set {}=... on the command line"


def design_variables(columns: Mapping[str, Array], law: Law, also: tuple[str, ...] = ()) -> dict[str, Array]:
    """The law's variables, and those of `also` that are there, as (n,) floats for a prediction.

    Raises InputError for a missing variable, one that is not finite or not positive, a share outside [0, 1), and
    columns of different lengths. A column of `also` may have gaps. No experts are those of a dense model.
    """
    columns = zero_as_dense(columns)
    check_counts(columns, law)
    found = variables(columns, law, GIVE)
    for name, values in found.items():
        check_variable(name, values)
    extra = {name: numbers(columns[name], name) for name in also if name in columns and name not in found}
    for name, values in extra.items():
        check_variable(name, values[np.isfinite(values)])
    found |= extra
    try:
        return dict(zip(found, np.broadcast_arrays(*found.values()), strict=True))
    except ValueError:
        lengths = ", ".join(f"{name} {len(values)}" for name, values in found.items())
        raise InputError(f"predict: the variables differ in length: {lengths}") from None


def predicted_value(law: Law, coefficients: Mapping[str, float] | None, given: Mapping[str, Array]) -> Array:
    """(n,): the law's prediction at variables of shape (n,). Raises InputError where it is not finite."""
    with np.errstate(all="ignore"):
        value = np.broadcast_to(law.loss(coefficients, given), next(iter(given.values())).shape)
    if not np.isfinite(value).all():
        row = int(np.flatnonzero(~np.isfinite(value))[0])
        at = ", ".join(f"{name}={given[name][row]:g}" for name in law.variables)
        raise InputError(f"{law.id}: gives no finite number at {at}, too far outside the range it describes")
    return value
