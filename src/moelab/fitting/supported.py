"""Which laws a table can be fitted with, and why not the others."""

from typing import Any

import numpy as np

from moelab.fitting.blanks import filled
from moelab.fitting.columns import columns_of, variable
from moelab.fitting.run_kinds import moe_runs
from moelab.fitting.table_checks import repeats_data
from moelab.laws import Law, all_laws, with_data_reuse


def supported_laws(table: Any, target: str | None = None) -> tuple[list[Law], dict[str, str]]:
    """The laws whose variables a table has and which describe its runs; and for the others, why not.

    Laws that share one form differ only in their published coefficients: the first of them stands for all. Where rows
    repeat their data, a law in tokens that does not see it is LAW+reuse.
    """
    columns, _ = filled(columns_of(table))
    repeated = repeats_data(columns)
    moe, tokens = moe_runs(columns), variable(columns, "tokens")
    data_differs = tokens is not None and np.max(tokens) > 1.25 * np.min(tokens)
    found: list[Law] = []
    skipped: dict[str, str] = {}
    forms: dict[str, tuple[str, tuple[str, ...]]] = {}
    for law in all_laws().values():
        missing = [name for name in law.variables if name not in law.optional and variable(columns, name) is None]
        same = next((name for name, form in forms.items() if form == (law.form, law.variables)), None)
        if law.kind != "loss" and target in (None, "loss"):
            skipped[law.id] = f"predicts {law.kind}, not loss"
        elif law.variant_of:
            skipped[law.id] = f"a variant of {law.variant_of}; ask for it by its id"
        elif missing:
            skipped[law.id] = f"no column for {', '.join(missing)}"
        elif not law.covers_moe and moe is not None and moe.any():
            skipped[law.id] = "describes dense models only"
        elif not law.covers_dense and moe is not None and not moe.all():
            skipped[law.id] = "does not describe the dense runs; leave them out with --where"
        elif "tokens" not in law.variables and data_differs:
            skipped[law.id] = "has no variable for tokens, in which the runs differ"
        elif same is not None:
            skipped[law.id] = f"the same form as {same}"
        else:
            blind = repeated and "tokens" in law.variables and "unique_tokens" not in law.variables
            forms[law.id] = (law.form, law.variables)
            found.append(with_data_reuse(law) if blind else law)
    return found, skipped
