"""Tables of runs that ship with moelab. Each has a data card beside it: `card("reference")`."""

from importlib.resources import files
from typing import TYPE_CHECKING

from moelab.errors import InputError
from moelab.printable import suggest

if TYPE_CHECKING:
    import polars as pl

NAMES = ("reference",)


def reference() -> "pl.DataFrame":
    """moelab's own runs: small models on one text, dense and MoE, one row per finished run; `study` names the sweep.

    Rows of the study `reference-rates` differ in their learning rate only and are no table for a law of the loss. The
    table grows as runs finish; it may hold no row of the study `reference` yet.

    >>> from moelab.runs import datasets
    >>> "loss" in datasets.reference().columns
    True
    """
    import polars as pl

    with _file("reference.csv").open("rb") as stream:
        return pl.read_csv(stream, infer_schema_length=None, schema_overrides={"run_id": pl.String})


def card(name: str) -> str:
    """The data card of a table: what it holds, how it was made, its licence. Raises InputError for another name."""
    if name not in NAMES:
        raise InputError(f"dataset: no such table {name!r}; {suggest(name, NAMES)}known: {', '.join(NAMES)}")
    return _file(f"{name}.md").read_text(encoding="utf-8")


def _file(name: str):  # type: ignore[no-untyped-def]
    return files("moelab.runs").joinpath("tables", name)
