"""A law's coefficients as a table: numbers with intervals read better in columns than in a picture."""

from typing import Any

from moelab.report.page import Table
from moelab.report.tables import read_rows


def coefficients(table: Any, caption: str = "Coefficients with 80 % intervals.") -> Table:
    """Columns: law, name, value, low, high (may be null). Four significant digits, an interval where there is one."""
    rows, _ = read_rows(table, "coefficients", ["value"], texts=["law", "name"], optional=["low", "high"])
    cells = [[row["law"], row["name"], *(_digits(row[name]) for name in ("value", "low", "high"))] for row in rows]
    return Table(["law", "coefficient", "value", "p10", "p90"], cells, caption)


def _digits(value: float | None) -> str | None:
    if value is None:
        return None
    return f"{value:.4g}".replace("e+0", "e").replace("e+", "e").replace("e-0", "e-")
