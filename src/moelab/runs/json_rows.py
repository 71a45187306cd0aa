"""Rows as JSON files lay them out: pandas' orients, nested fields, W&B's config and summary."""

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from moelab.errors import InputError
from moelab.files import read_json
from moelab.yaml_reader import parse_yaml

SUMMARY = "wandb-summary.json"
_LISTS = ("runs", "rows", "records", "results", "log_history")
"""Keys that hold the rows beside others that describe the file; the last is that of a Hugging Face trainer's state."""
_FIELD = re.compile(r"loss|perplexity|params|parameters|tokens|flops|learning_rate|^lr$", re.IGNORECASE)
"""What a field of a run is called, and no run is."""


def rows_of(value: Any) -> list[Any] | None:
    """The rows of a JSON value as pandas writes one (records, split, table, columns, index), None for one row.

    Raises ValueError where columns differ in length.
    """
    if not isinstance(value, Mapping):
        return list(value) if isinstance(value, list) else None
    if isinstance(value.get("columns"), list) and isinstance(value.get("data"), list):
        return [dict(zip(value["columns"], row, strict=True)) for row in value["data"]]
    if isinstance(value.get("schema"), Mapping) and isinstance(value.get("data"), list):
        return list(value["data"])
    if len(value) == 1 and _are_rows(only := next(iter(value.values()))):
        return list(only)
    if (rows := next((value[key] for key in _LISTS if _are_rows(value.get(key))), None)) is not None:
        return list(rows)
    if value and all(isinstance(column, list) for column in value.values()):
        return _transposed({name: dict(enumerate(column)) for name, column in value.items()})
    if value and all(isinstance(column, Mapping) for column in value.values()):
        keys = [set(column) for column in value.values()]
        if all(key.isdigit() for key in value):
            return list(value.values())
        if all(each == keys[0] for each in keys) and all(str(key).isdigit() for key in keys[0]):
            return _transposed(value)
        if len(value) > 1 and all(each == keys[0] for each in keys):
            return _named_rows(value)
    return None


def _named_rows(value: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]] | None:
    """Rows by the names of their runs, or columns by theirs with a name per row; None where the
    keys of both kinds, or of neither, are called like fields of a run."""
    inner = any(_FIELD.search(key) for key in _first(value))
    outer = any(_FIELD.search(key) for key in value)
    if inner == outer:
        return None
    rows = value if inner else {key: {name: column[key] for name, column in value.items()} for key in _first(value)}
    return [{"name": key, **row} for key, row in rows.items()]


def _first(value: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Any]:
    return next(iter(value.values()))


def _are_rows(value: Any) -> bool:
    """Whether a value is a list of rows, such as that of {"runs": [...]}."""
    return isinstance(value, list) and bool(value) and all(isinstance(row, Mapping) for row in value)


def _transposed(columns: Mapping[str, Mapping[Any, Any]]) -> list[dict[str, Any]]:
    index = next(iter(columns.values()))
    if any(len(column) != len(index) for column in columns.values()):
        raise ValueError("its columns differ in length")
    return [{name: column[key] for name, column in columns.items()} for key in index]


def flat(row: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """{"config": {"lr": 1}} -> {"config.lr": 1}; W&B's {"value": 1, "desc": null} is 1; lists are left out."""
    found: dict[str, Any] = {}
    for key, value in row.items():
        name = f"{before}{key}"
        if isinstance(value, Mapping) and "value" in value and set(value) <= {"value", "desc"}:
            value = value["value"]
        if isinstance(value, Mapping):
            found |= flat(value, f"{name}.")
        elif not isinstance(value, list):
            found[name] = value
    return found


def table_of(rows: list[Any]) -> pl.DataFrame:
    """Rows as a table, nested fields as columns of dotted names; `config.` and `summary.` go where that is unique."""
    flattened = [flat(row) for row in rows]
    names = dict.fromkeys(name for row in flattened for name in row)
    short = {name: name.removeprefix("config.").removeprefix("summary.") for name in names}
    taken = Counter(short.values())
    short = {name: new if taken[new] == 1 else name for name, new in short.items()}
    data = {new: [row.get(name) for row in flattened] for name, new in short.items()}
    return pl.DataFrame({name: _column(values) for name, values in data.items()})


def _column(values: list[Any]) -> pl.Series:
    kinds = {type(value) for value in values if value is not None}
    if kinds <= {int, float}:
        return pl.Series([None if value is None else float(value) for value in values], dtype=pl.Float64)
    if len(kinds) > 1:
        return pl.Series([None if value is None else str(value) for value in values], dtype=pl.String)
    return pl.Series(values)


def wandb_table(folder: Path) -> pl.DataFrame | None:
    """The runs that W&B kept below a folder: each one's config and last values; None where it keeps none.

    Raises InputError where it holds W&B's binary logs alone, which runs that were not synced leave.
    """
    rows = []
    for place in sorted(folder.rglob(SUMMARY)):
        config = place.parent / "config.yaml"
        row: dict[str, Any] = {"run": place.parents[1].name}
        if config.exists():
            given = parse_yaml(config.read_text(encoding="utf-8"), str(config))
            row |= {k: v for k, v in flat(given or {}).items() if not k.startswith(("wandb_version", "_wandb"))}
        last = read_json(place, "run")
        if not isinstance(last, dict):
            raise InputError(f"runs: {place} holds no summary of a run")
        rows.append(row | {k: v for k, v in flat(last).items() if not k.startswith("_wandb")})
    if not rows and (log := next(folder.rglob("*.wandb"), None)) is not None:
        raise InputError(
            f"runs: {folder} holds W&B's binary logs ({log.name}) without {SUMMARY}; export the runs' table as CSV"
        )
    return table_of(rows) if rows else None
