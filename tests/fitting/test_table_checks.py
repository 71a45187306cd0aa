"""Checks of a table before a fit: each finds its kind, names what mends it, and finds nothing in clean tables."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import moelab
from moelab.errors import InputError
from moelab.fitting.checks import numbers
from moelab.fitting.fit import fit
from moelab.fitting.table_checks import check_table
from moelab.fitting.table_columns import suggestions
from moelab.laws import get_law
from moelab.runs.table import load_table

V0_1 = Path(__file__).parents[1] / "fixtures" / "v0_1"


def found(table: Any, loss: str | None = None) -> dict[str, str]:
    return {finding.check: str(finding) for finding in check_table(table, loss)}


def test_a_clean_table_has_no_findings(clean) -> None:
    assert found(clean) == {}
    assert found({**clean, "run_name": [f"run {i}" for i in range(30)], "seed": np.arange(30)}) == {}


def test_numbers_written_for_people_are_refused_with_what_to_write(clean) -> None:
    for cell, number in (("15.1B", "15100000000"), ("2,465,562", "2465562")):
        table = {**clean, "tokens": np.array([cell, *clean["tokens"][1:]], dtype=object)}
        with pytest.raises(InputError, match=f"tokens: expected numbers, row 1 holds '{cell}'; write it as {number}"):
            fit(table, "hoffmann2022", bootstrap=0)
    table = {"params_total": clean["params_total"], "flops": clean["tokens"] * 1e9, "loss": clean["loss"]}
    with pytest.raises(InputError, match=r"--let 'tokens = flops / \(6 \* params_total\)'"):
        fit(table, "hoffmann2022", bootstrap=0)


@pytest.mark.parametrize(
    ("cells", "advice"),
    [
        (["4,402", "4,101"], "; write it as 4402, or as 4.402 where its comma is a decimal one"),
        (["4,402", "4,1"], "; write it as 4.402"),
        (["4,402", "4,101,300"], "; write it as 4402"),
        (["4,40", "4,10"], "; write it as 4.4"),
        (["2.465.562", "1.000.000"], "; write it as 2465562"),
        (["3,5B", "4B"], "; write it as 3500000000"),
        (["large", "4"], "$"),
    ],
)
def test_commas_of_decimals_and_of_thousands(cells, advice) -> None:
    with pytest.raises(InputError, match=f"loss: expected numbers, row 1 holds '{cells[0]}'.*{advice}"):
        numbers(np.array(cells, dtype=object), "loss")
    assert re.search(advice, found({"params_total": [1e8, 2e8], "tokens": [1e9, 2e9], "loss": cells})["cells"])


@pytest.mark.parametrize(
    ("change", "check", "part"),
    [
        ({"tokens": "30M"}, "cells", "tokens: expected numbers, row 4 holds '30M'; write it as 30000000"),
        ({"loss": 0.0}, "values", """first row 4 (0); drop them with --where "loss > 0\""""),
        ({"loss": -1.0}, "values", """loss: must be positive; 1 of 30 rows are not, first row 4 (-1)"""),
        ({"tokens": np.nan}, "values", """first row 4 (nan); drop them with --where "tokens > 0\""""),
        ({"params_total": 0.0}, "values", """first row 4 (0); drop them with --where "params_total > 0\""""),
        ({"loss": np.inf}, "values", """first row 4 (inf); drop them with --where "loss < 10\""""),
    ],
)
def test_what_a_fit_refuses_is_noted_before(change, check, part, clean) -> None:
    table = dict(clean)
    for name, cell in change.items():
        table[name] = np.array([*clean[name][:3], cell, *clean[name][4:]], dtype=object)
        if not isinstance(cell, str):
            table[name] = table[name].astype(float)
    text = found(table)[check]
    assert part in text
    with pytest.raises(InputError):
        fit(table, "hoffmann2022", bootstrap=0)
    if where := re.search(r'--where "(.*)"', text):
        assert "values" not in found(load_table(pl.DataFrame(table), where=[where[1]]))


def test_variables_that_no_model_has(clean) -> None:
    sizes, full = clean["params_total"], np.full(30, 1.0)
    text = found({**clean, "sparsity": 75 * full})["values"]
    assert text.startswith("sparsity: must be at least 0 and below 1; 30 of 30 rows are not, first row 1 (75)")
    assert text.endswith("--let 'sparsity = sparsity / 100'")
    rate = np.where(np.arange(30) == 7, 1.7, 0.1)
    assert found({**clean, "activation_rate": rate})["values"].endswith('drop them with --where "activation_rate <= 1"')
    swapped = found({**clean, "params_active": 3 * sizes})["values"]
    assert swapped.startswith("params_active is above params_total in 30 of 30 rows, first row 1 (")
    assert "top_k is above n_experts in 30" in found({**clean, "n_experts": 8 * full, "top_k": 10 * full})["values"]
    assert found({**clean, "params_active": sizes}) == {}


def test_tables_that_are_none() -> None:
    assert "the table has 1 row: no fit is possible" in found({"tokens": [1e9], "loss": [3.0]})["rows"]
    chart = {"Step": [1.0, 2.0], "a - val/loss": [5.0, 4.0], "b - val/loss": [5.0, 4.0]}
    assert found(chart)["names"].startswith("2 columns are one run's chart each")
    assert "no column gives parameters" in found({"x": [1.0, 2.0], "loss": [5.0, 4.0]})["names"]
    assert "no column 'accuracy' to fit" in found({"tokens": [1e9, 2e9]}, "accuracy")["names"]
    letters = {"N": [1e8, 2e8], "D": [1e9, 2e9], "L": [3.2, 3.0]}
    assert suggestions(letters)["loss"] == ("L", "L")
    assert "loss" not in suggestions(["n_layers", "L"])


@pytest.mark.parametrize(
    ("column", "variable", "expression"),
    [
        ("Active Params (M)", "params_active", '1e6 * "Active Params (M)"'),
        ("num_experts", "n_experts", "num_experts"),
        ("Tokens (B)", "tokens", '1e9 * "Tokens (B)"'),
        ("tokens_b", "tokens", "1e9 * tokens_b"),
        ("Training FLOP", "train_flops", '"Training FLOP"'),
        ("Model Size", "params_total", '"Model Size"'),
        ("topk", "top_k", "topk"),
        ("val_loss", "loss", "val_loss"),
        ("param_total", "params_total", "param_total"),
        ("granularty", "granularity", "granularty"),
    ],
)
def test_columns_named_nearly_right(column, variable, expression) -> None:
    assert suggestions([column])[variable] == (column, expression)


def test_a_missing_column_is_suggested(clean) -> None:
    table = {"Model Size": clean["params_total"], "Tokens (B)": clean["tokens"] / 1e9, "val_loss": clean["loss"]}
    with pytest.raises(InputError, match="no column 'loss' to fit; fit one with --loss val_loss"):
        fit(table, "hoffmann2022", bootstrap=0)
    with pytest.raises(InputError, match="""--let 'params_total = "Model Size"', --let 'tokens = 1e9"""):
        fit(table, "hoffmann2022", loss="val_loss", bootstrap=0)


def test_rows_without_a_loss_are_left_out_and_counted(clean) -> None:
    frame = pl.DataFrame({**clean, "loss": [None, float("nan"), *clean["loss"][2:]]})
    assert found(frame)["missing"] == "2 of 30 rows have no loss and are left out"
    fitted = fit(frame, "hoffmann2022", bootstrap=0, starts=1)
    assert fitted.n_runs == 28
    held = np.arange(30) >= 20
    result = moelab.compare_laws(frame, ["hoffmann2022"], holdout_rows=held, bootstrap=0, starts=1)
    assert result.fits["hoffmann2022"].holdout.n_runs == 10
    with pytest.raises(InputError, match="loss: no row has a value"):
        check_table(pl.DataFrame({"loss": [float("nan")]}))


def test_blank_experts_are_dense() -> None:
    columns = {
        "n_experts": [np.nan, 8, 0],
        "top_k": [np.nan, 1, 0],
        "params_active": [1e8] * 3,
        "loss": [3.0, 2.9, 3.0],
    }
    assert found(columns)["blanks"] == "2 of 3 rows have no n_experts and are taken as dense (n_experts 1, top_k 1)"
    moe = {**columns, "params_total": [2e8, 8e8, 1e8]}
    assert "1 of 3 rows have no n_experts" in found(moe)["blanks"]  # the first has more total than active parameters


def test_repeated_data_is_fitted_as_such_by_all(synthetic) -> None:
    law = get_law("hoffmann2022+reuse")
    table = synthetic(law, law.published, 40, 0.002)
    assert "rows repeat their data" in found(table)["reuse"]
    result = moelab.compare_laws(table, holdout=None, holdout_optional=False, bootstrap=0, starts=2)
    assert "hoffmann2022+reuse" in result.fits
    assert "hoffmann2022" not in result.fits
    assert list(moelab.compare_laws(table, ["hoffmann2022"], bootstrap=0, starts=2).fits) == ["hoffmann2022"]


PUBLIC = {
    "clark2022/final_losses.csv": ("loss_validation", {"names"}),
    "muennighoff2023/runs_fitset_182.csv": ("val_loss", {"names", "reuse"}),
    "marin2026/runs.csv": ("paloma_macro", {"missing", "names", "values"}),
    "flame2025/runs.csv": ("loss", {"names", "experts"}),
}
"""Checks that rightly find something in a public table: columns under other names, experts that stand in a note alone,
repeated data, missing losses or tokens."""


@pytest.mark.parametrize("name", PUBLIC)
def test_public_tables_warn_of_nothing_else(name, published_runs) -> None:
    path = published_runs / name
    loss, expected = PUBLIC[name]
    assert set(found(path, loss)) == expected


def test_runs_of_moelab_warn_of_nothing_else() -> None:
    assert found(V0_1 / "table.csv") == {}
    assert set(found(V0_1 / "studies" / "finished" / "runs.csv")) == {"reuse"}


@pytest.mark.parametrize(
    ("name", "check", "part"),
    [
        ("checkpoints.csv", "checkpoints", "60 rows are checkpoints of 5 runs (column run_name)"),
        ("tokB.csv", "units", "tokens: 1 to 32 look like billions"),
        ("percent.csv", "units", "look like per cent"),
        ("ppl.csv", "units", "look like perplexity"),
        ("moe_blank.csv", "blanks", "12 of 60 rows have no n_experts and are taken as dense"),
        ("nan.jsonl", "missing", "6 of 36 rows have no loss"),
    ],
)
def test_tables_as_people_have_them(name, check, part) -> None:
    assert part in found(V0_1.parent / "tables" / name)[check]


def test_dense_rows_with_blank_experts_are_fitted() -> None:
    fitted = fit(V0_1.parent / "tables" / "moe_blank.csv", "ludziejewski2025", bootstrap=0, starts=32)
    assert fitted.n_runs == 60
    assert fitted.kinds.count("dense") == 12


def test_epochs_of_another_unit_are_not_counted(clean) -> None:
    few = found({**clean, "unique_tokens": clean["tokens"] / 4})
    assert "up to 4 epochs" in few["reuse"]
    assert "reuse" not in found({**clean, "unique_tokens": np.minimum(clean["tokens"], 4e9) / 1e9})


def test_bits_per_byte_and_exported_names_are_offered() -> None:
    assert suggestions(["params_total", "tokens", "bpb"])["loss"] == ("bpb", "bpb")
    assert suggestions(["tokens", "eval/bits_per_byte"])["loss"][1] == '"eval/bits_per_byte"'
    assert suggestions(["bpb", "val_loss"])["loss"] == ("val_loss", "val_loss")
    exported = suggestions(["config.model.n_params", "config.data.tokens", "val/loss"])
    assert exported["params_total"][1] == '"config.model.n_params"'
    assert exported["tokens"][1] == '"config.data.tokens"'


def test_abbreviated_columns_have_the_option_that_maps_each() -> None:
    names = ("run_name", "active_M", "total_M", "n_routed", "k", "tok_B", "ce")
    found = suggestions(names)
    expected = {"params_active": "1e6 * active_M", "params_total": "1e6 * total_M", "n_experts": "n_routed"}
    expected |= {"top_k": "k", "tokens": "1e9 * tok_B", "loss": "ce"}
    assert {name: expression for name, (_, expression) in found.items()} == expected
    assert suggestions(("active", "total")) == {}, "without a unit these may be anything"
