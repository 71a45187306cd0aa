"""Where fitted laws differ most, with the design: among a table's runs, and beyond them."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moelab.errors import InputError
from moelab.fitting.blanks import filled
from moelab.fitting.columns import Columns, columns_of, variable
from moelab.fitting.fitted import FittedLaw
from moelab.notebook import Shown

Array = NDArray[Any]
BEYOND = 10.0
_GROWN = ("tokens", "unique_tokens", "flops_per_token")


@dataclass(frozen=True, kw_only=True, repr=False)
class Disagreement(Shown):
    """The design at which laws differ most: `where` it was sought, the table's row (from 1, of those fitted) with its
    label, its variables, each law's prediction, and the spread from the lowest to the highest."""

    where: str
    row: int
    label: str
    design: dict[str, float]
    predictions: dict[str, float]
    spread: float

    def to_dict(self) -> dict[str, Any]:
        """Plain data: an entry of `moelab fit --json`."""
        return asdict(self)


def predictions_by_law(fits: Mapping[str, FittedLaw], columns: Columns) -> dict[str, Array]:
    """Every law's prediction for each row, (n,)."""
    return {name: fitted.predict(columns).value for name, fitted in fits.items()}


def largest_disagreements(fits: Mapping[str, FittedLaw], table: Any) -> list[Disagreement]:
    """The design of the largest spread among a table's rows, and among them at ten times their size and data.

    Empty for fewer than two laws of one kind, and where none predicts a finite number.
    """
    kind = next(iter(fits.values())).law.kind
    compared = {name: fitted for name, fitted in fits.items() if fitted.law.kind == kind}
    if len(compared) < 2:
        return []
    columns, _ = filled(columns_of(table))
    found = []
    for where, rows in (("among these runs", columns), ("at ten times their size and data", beyond(columns))):
        try:
            predicted = predictions_by_law(compared, rows)
        except InputError:
            continue
        stacked = np.stack(list(predicted.values()))
        spread = np.ptp(stacked, axis=0)
        row = int(np.argmax(spread))
        names = dict.fromkeys(name for fitted in compared.values() for name in fitted.law.variables)
        design = {name: values for name in names if (values := variable(rows, name)) is not None}
        found.append(
            Disagreement(
                where=where,
                row=row + 1,
                label=str(columns["name"][row]) if "name" in columns else str(row + 1),
                design={name: float(values[row]) for name, values in design.items()},
                predictions={name: float(values[row]) for name, values in predicted.items()},
                spread=float(spread[row]),
            )
        )
    return found


def beyond(columns: Columns, factor: float = BEYOND) -> dict[str, Array]:
    """The columns with parameters and tokens multiplied by `factor`, compute by its square, all others unchanged."""

    def grown(name: str, values: Array) -> Array:
        if name.startswith("params_") or name in _GROWN:
            return np.asarray(values, float) * factor
        return np.asarray(values, float) * factor**2 if name == "train_flops" else values

    return {name: grown(name, values) for name, values in columns.items()}
