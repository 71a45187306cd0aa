"""What the figures read: plain tables (polars or pandas frames, lists of dicts), checked before drawing."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from moelab.errors import InputError

Row = dict[str, Any]
KINDS = {"moe": "MoE", "dense": "dense"}


def read_rows(
    table: Any,
    figure: str,
    numbers: Sequence[str],
    *,
    positive: Sequence[str] = (),
    texts: Sequence[str] = (),
    optional_texts: Sequence[str] = (),
    optional: Sequence[str] = (),
    flags: Sequence[str] = (),
    optional_flags: Sequence[str] = (),
) -> tuple[list[Row], int]:
    """Rows that can be drawn, and how many were left out because a required number is missing or not finite.

    `numbers` must be there and finite, `positive` also above zero (they lie on a log axis). `texts` become strings;
    `optional` numbers and `optional_texts` may be absent or null; `flags` are true or false, `optional_flags` false
    where absent. A `kind` column is always read as "MoE" or "dense". Raises InputError naming a missing column, an
    empty table, or a cell of the wrong type.
    """
    raw = _dicts(table, figure)
    if not raw:
        raise InputError(f"{figure}: the table has no rows, nothing to draw")
    needed = [*numbers, *positive, *texts, *flags]
    present: set[str] = set().union(*(row.keys() for row in raw))
    for name in needed:
        if name not in present:
            have = ", ".join(sorted(present)) or "none"
            raise InputError(
                f"{figure}: column {name} is missing (required: {', '.join(needed)}; the table has: {have})"
            )
    rows: list[Row] = []
    for source in raw:
        row: Row = {name: _number(source.get(name), f"{figure}: {name}") for name in (*numbers, *positive, *optional)}
        row |= {name: _text(source.get(name)) for name in (*texts, *optional_texts)}
        row |= {name: _flag(source.get(name), f"{figure}: {name}") for name in flags}
        row |= {name: _flag(source.get(name, False), f"{figure}: {name}") for name in optional_flags}
        if "kind" in row:
            row["kind"] = _kind(row["kind"], figure)
        if all(row[name] is not None for name in (*numbers, *positive)) and all(row[name] > 0 for name in positive):
            rows.append(row)
    if not rows:
        raise InputError(f"{figure}: no row has a finite value in {', '.join((*numbers, *positive))}")
    return rows, len(raw) - len(rows)


def unique(values: Iterable[Any]) -> list[Any]:
    """The distinct values in order of first appearance."""
    return list(dict.fromkeys(values))


def _dicts(table: Any, figure: str) -> list[Mapping[str, Any]]:
    if hasattr(table, "to_dicts"):
        return list(table.to_dicts())
    if hasattr(table, "iterrows"):
        return list(table.to_dict("records"))
    if isinstance(table, Sequence) and all(isinstance(row, Mapping) for row in table):
        return list(table)
    raise InputError(f"{figure}: expected a polars or pandas table or a list of dicts, got {type(table).__name__}")


def _number(value: Any, field: str) -> float | int | None:
    if hasattr(value, "item") and not hasattr(value, "__len__"):
        value = value.item()
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(f"{field}: expected a number, got {value!r}")
    return value if math.isfinite(value) else None


def _flag(value: Any, field: str) -> bool:
    if hasattr(value, "item"):
        value = value.item()
    if not isinstance(value, bool):
        raise InputError(f"{field}: expected true or false, got {value!r}")
    return value


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def _kind(value: str, figure: str) -> str:
    if value.lower() not in KINDS:
        raise InputError(f"{figure}: kind: expected dense or moe, got {value!r}")
    return KINDS[value.lower()]
