"""A law's coefficients as a table: numbers with intervals read better in columns than in a picture."""

from typing import Any

from moelab.report.page import Table
from moelab.report.tables import read_rows


def coefficients(table: Any, caption: str = "Coefficients with 80 % intervals.") -> Table:
    """Columns: law, name, value, low, high (may be null). An interval where there is one gives a row its digits."""
    rows, _ = read_rows(table, "coefficients", ["value"], texts=["law", "name"], optional=["low", "high"])
    cells = [[row["law"], row["name"], *(row[name] for name in ("value", "low", "high"))] for row in rows]
    return Table(["law", "coefficient", "value", "p10", "p90"], cells, caption)
