"""Checks of a table before a fit: each finds its kind, names what mends it, and finds nothing in clean tables."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import moelab
from moelab.errors import InputError
from moelab.fitting.checks import numbers
from moelab.fitting.fit import fit
from moelab.fitting.observations import observations
from moelab.fitting.predict import predict
from moelab.fitting.table_checks import check_table
from moelab.fitting.table_columns import is_label, is_outcome, suggestions
from moelab.fitting.table_rows import best_rows
from moelab.laws import get_law
from moelab.runs.table import load_table

V0_1 = Path(__file__).parents[1] / "fixtures" / "v0_1"


@pytest.fixture
def clean(synthetic: Callable[..., Any]) -> dict[str, Any]:
    """Thirty runs without anything to warn of."""
    law = get_law("hoffmann2022")
    return dict(synthetic(law, law.published, 30, 0.005))


def found(table: Any, loss: str | None = None) -> dict[str, str]:
    return {finding.check: str(finding) for finding in check_table(table, loss)}


def test_a_clean_table_has_no_findings(clean) -> None:
    assert found(clean) == {}
    assert found({**clean, "run_name": [f"run {i}" for i in range(30)], "seed": np.arange(30)}) == {}


@pytest.mark.parametrize(
    ("change", "check", "part"),
    [
        ({"tokens": 1e-9}, "units", "look like billions; --let 'tokens = 1e9 * tokens'"),
        ({"tokens": 1e-6}, "units", "look like millions; --let 'tokens = 1e6 * tokens'"),
        ({"params_total": 1e-9}, "units", "look like billions; --let 'params_total = 1e9 * params_total'"),
        (
            {"params_total": 1e-9, "tokens": 1e-9},
            "units",
            "look like billions; --let 'params_total = 1e9 * params_total'",
        ),
        ({"loss": 100}, "units", "look like per cent, not nats per token; --let 'loss = loss / 100'"),
        ({"loss": 0.01}, "units", "which no language model reaches"),
    ],
)
def test_units_out_of_range(change, check, part, clean) -> None:
    table = {**clean, **{name: np.asarray(clean[name]) * factor for name, factor in change.items()}}
    assert any(finding.check == check and part in str(finding) for finding in check_table(table))


def test_sizes_and_tokens_that_are_both_scaled(clean) -> None:
    """Millions of parameters beside billions of tokens: their ratio alone looks plausible."""
    table = {**clean, "params_total": clean["params_total"] / 1e6, "tokens": clean["tokens"] / 1e9}
    units = [str(finding) for finding in check_table(table) if finding.check == "units"]
    assert len(units) == 2
    assert units[0].endswith("--let 'params_total = 1e6 * params_total'")
    assert units[1].endswith("--let 'tokens = 1e9 * tokens'")


def test_two_units_in_one_column(clean) -> None:
    """Some rows in billions, one row, one file: the rows are named, and the option mends the table."""
    some = {**clean, "tokens": np.where(np.arange(30) < 12, clean["tokens"] / 1e9, clean["tokens"])}
    text = found(some)["units"]
    assert text.startswith("tokens: 12 of 30 rows (rows 1 to 12) hold ")
    let = re.search(r"--let '(.*)'$", text)
    assert let is not None
    mended = load_table(pl.DataFrame(some), [let[1]])
    assert mended["tokens"].to_numpy() == pytest.approx(clean["tokens"])
    assert found(mended) == {}
    one = {**clean, "tokens": np.where(np.arange(30) == 4, clean["tokens"] / 1e9, clean["tokens"])}
    assert "1 of 30 rows (row 5) hold" in found(one)["units"]
    files = pl.DataFrame({**clean, "file": ["raw.csv"] * 30})
    scaled = files.with_columns(pl.col("params_total") / 1e6, pl.col("tokens") / 1e9, file=pl.lit("scaled.csv"))
    notes = [str(finding) for finding in check_table(pl.concat([files, scaled])) if finding.check == "units"]
    assert len(notes) == 2
    assert "30 of 60 rows (file scaled.csv)" in notes[0]
    assert "look like millions" in notes[0]
    assert "look like billions" in notes[1]


def test_rows_with_tokens_per_parameter_that_no_run_has(clean) -> None:
    """Thousands leave no gap between the two units, but no row's tokens fit its parameters."""
    tokens = np.where(np.arange(30) % 10 == 3, clean["params_total"] / 1e3, 20 * clean["params_total"])
    assert found({**clean, "tokens": tokens})["units"] == (
        "3 of 30 rows (rows 4, 14, 24) have 0.001 tokens per parameter of params_total, the median is 20: "
        "is their unit another one?"
    )


def test_logarithms_of_sizes_are_no_billions(clean) -> None:
    text = found({**clean, "params_total": np.log10(clean["params_total"])})["units"]
    assert text.endswith("look like decimal logarithms; --let 'params_total = POW(10, params_total)'")


@pytest.mark.parametrize(
    ("take", "name", "power"), [(np.log10, "decimal", "POW(10, {})"), (np.log, "natural", "EXP({})")]
)
def test_logarithms_of_sizes_and_tokens(take, name, power, clean) -> None:
    both = {**clean, "params_total": take(clean["params_total"]), "tokens": take(clean["tokens"])}
    notes = [finding for finding in check_table(both) if finding.check == "units"]
    assert [note.mend for note in notes] == [
        f"--let '{column} = {power.format(column)}'" for column in ("params_total", "tokens")
    ]
    assert all(f"look like {name} logarithms" in note.text for note in notes)
    mended = load_table(pl.DataFrame(both), [note.mend.split("'")[1] for note in notes])
    assert found(mended) == {}


def test_logarithms_or_billions() -> None:
    """Sizes without tokens may be either; two digits, or whole numbers, are billions."""
    alone = {"params_total": np.linspace(7.4771, 9.0001, 12), "loss": np.linspace(4, 3, 12)}
    text = found(alone)["units"]
    assert "look like decimal logarithms or billions; --let 'params_total = POW(10, params_total)' or --let" in text
    billions = {"params_total": [6.7, 7.0, 8.0, 12.1], "tokens": [7.0, 8.0, 12.0, 13.5], "loss": [2.2, 2.1, 2.0, 1.9]}
    assert "look like billions" in found(billions)["units"]


@pytest.mark.parametrize(
    ("factor", "unit", "mend"),
    [(1e18, "exaFLOPs", "1e18"), (1e15, "petaFLOPs", "1e15"), (8.64e19, "petaFLOP/s-days", "8.64e19")],
)
def test_units_of_train_flops(factor, unit, mend, clean) -> None:
    flops = 6 * clean["params_total"] * clean["tokens"]
    assert found({**clean, "train_flops": 1.4 * flops}) == {}
    assert found({**clean, "train_flops": flops / 3}) == {}  # the forward pass alone
    text = found({**clean, "train_flops": flops / factor})["flops"]
    assert text.endswith(f"look like {unit}; --let 'train_flops = {mend} * train_flops'")


def test_train_flops_that_do_not_follow_the_runs(clean) -> None:
    flops = 6 * clean["params_total"] * clean["tokens"]
    own = "--let 'train_flops = 6 * params_total * tokens'"
    one = found({**clean, "train_flops": np.where(np.arange(30) == 7, flops / 1e9, flops)})["flops"]
    assert one.startswith("1 of 30 rows: train_flops is 1e-09 to 1 times 6 x params_total x tokens")
    assert one.endswith(own)
    logs = found({**clean, "train_flops": np.log10(flops)})["flops"]
    assert logs.endswith("look like decimal logarithms; --let 'train_flops = POW(10, train_flops)'")
    assert found({**clean, "train_flops": 200 * flops})["flops"].endswith(own)
    assert found({**clean, "train_flops": flops * (1 + np.arange(30) * 7 % 30)})["flops"].endswith(own)
    assert found({**clean, "train_flops": 0.03 * flops, "n_experts": np.full(30, 64.0)}) == {}  # active ones count


def test_a_toy_run_is_not_in_another_unit() -> None:
    toy = {"params_total": [5e3, 1e4, 2e4], "tokens": [2048.0, 4096.0, 8192.0], "loss": [5.0, 4.8, 4.5]}
    assert "units" not in found(toy)


def test_tokens_that_follow_the_size_and_losses_that_rise(clean) -> None:
    assert found({**clean, "tokens": 20 * clean["params_total"]})["one ratio"].startswith(
        "tokens follow params_total (about 20 per parameter)"
    )
    assert found({**clean, "loss": 9 - clean["loss"]})["rising"].startswith("loss rises with parameters and tokens")
    fitted = fit({**clean, "tokens": 20 * clean["params_total"]}, "hoffmann2022", bootstrap=20, starts=4)
    assert fitted.unidentified
    assert fitted.influence.flops is None  # no optimum is these runs' own
    assert "this optimum is not theirs" in fitted.optimum(1e21).notes[0]


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


def test_tables_that_are_none() -> None:
    assert "the table has 1 row: no fit is possible" in found({"tokens": [1e9], "loss": [3.0]})["rows"]
    chart = {"Step": [1.0, 2.0], "a - val/loss": [5.0, 4.0], "b - val/loss": [5.0, 4.0]}
    assert found(chart)["names"].startswith("2 columns are one run's chart each")
    assert "no column gives parameters" in found({"x": [1.0, 2.0], "loss": [5.0, 4.0]})["names"]
    assert "no column 'accuracy' to fit" in found({"tokens": [1e9, 2e9]}, "accuracy")["names"]
    letters = {"N": [1e8, 2e8], "D": [1e9, 2e9], "L": [3.2, 3.0]}
    assert suggestions(letters)["loss"] == ("L", "L")
    assert "loss" not in suggestions(["n_layers", "L"])


def test_perplexities_are_no_losses(clean) -> None:
    table = {**clean, "loss": np.exp(clean["loss"] + 0.5)}
    assert "look like perplexity, not nats per token; --let 'loss = LN(loss)'" in found(table)["units"]


def test_a_fit_in_other_units_is_noted_by_its_predictions(clean) -> None:
    fitted = fit({**clean, "tokens": clean["tokens"] / 1e9}, "hoffmann2022", bootstrap=0, starts=1)
    assert "tokens: " in predict(fitted, params_total=1e9, tokens=20).notes[0]
    assert predict(fit(clean, "hoffmann2022", bootstrap=0, starts=1), params_total=1e9, tokens=2e10).notes == ()


@pytest.mark.parametrize("steps", [False, True])
def test_checkpoints_without_a_column_of_runs(steps) -> None:
    """A row's own step marks a checkpoint; the number of steps of a whole run does not."""
    params, step = np.repeat(np.geomspace(3e7, 1e9, 6), 20), np.tile(500.0 * np.arange(1, 21), 6)
    loss = 2 + (params / 1e6) ** -0.3 + step**-0.3
    table = {"step": step, "params_total": params, "tokens": 4e5 * step, "loss": loss}
    if steps:
        assert "checkpoints" not in found({"steps": table.pop("step"), **table})
        return
    text = found(table)["checkpoints"]
    assert text.startswith("120 rows look like checkpoints of 6 runs (step and tokens rise together")
    assert text.endswith("no column names a run; --group params_total")
    grouped = observations(table, get_law("hoffmann2022"), group="params_total")
    assert len(np.unique(grouped.groups)) == 6


@pytest.mark.parametrize("name", ["run", "run_id", "run_name", "name", "id", "Name", "exp", "Run Name", "run-id"])
def test_checkpoints_are_grouped_by_their_run(name) -> None:
    law, rng = get_law("hoffmann2022"), np.random.default_rng(0)
    params = np.repeat(np.geomspace(1e8, 2e9, 6), 8)
    tokens = np.tile(np.geomspace(1e9, 1e10, 8), 6) * params / 1e8
    off = np.repeat(0.01 * rng.standard_normal(6), 8)
    table = {
        "params_total": params,
        "tokens": tokens,
        "loss": law.loss(None, {"params_total": params, "tokens": tokens}),
    }
    table |= {name: np.repeat([f"r{i}" for i in range(6)], 8), "loss": table["loss"] * np.exp(off)}
    assert "48 rows are checkpoints of 6 runs" in found(table)["checkpoints"]
    grouped, single = (observations(table, law, group=group) for group in (None, "none"))
    assert single.groups is None
    assert grouped.groups is not None
    assert len(np.unique(grouped.order)) == 6
    widths = [
        np.ptp(np.quantile(fit(table, law, group=group, bootstrap=50, starts=2).draws[:, 2], [0.1, 0.9]))
        for group in (None, "none")
    ]
    assert widths[0] > 2 * widths[1]


def test_runs_of_one_model_at_one_size_are_no_checkpoints(clean) -> None:
    table = {**clean, "name": ["small"] * 15 + ["large"] * 15}
    assert "checkpoints" not in found(table)  # one name stands for several sizes


def test_sweeps_offer_the_best_of_each_design(clean) -> None:
    table = {name: np.repeat(values, 3) for name, values in clean.items()}
    table["learning_rate"] = np.tile([1e-3, 2e-3, 4e-3], 30)
    table["loss"] = table["loss"] + 0.1 * np.abs(np.log(table["learning_rate"] / 2e-3))
    text = found(table)["sweep"]
    assert "90 rows sweep learning_rate over 30 designs" in text
    assert text.endswith("--best-of params_total")
    best = best_rows(table, ["params_total", "tokens"], "loss")
    assert (table["learning_rate"][best] == 2e-3).all()
    assert len(best) == 30
    with pytest.raises(InputError, match="best-of: the table has no column 'nothing'"):
        best_rows(table, ["nothing"], "loss")


def test_repeats_without_a_seed_and_copies(clean) -> None:
    again = {name: np.concatenate([values, values[:4]]) for name, values in clean.items()}
    assert "4 of 34 rows are copies of another row" in found(again)["copies"]
    again["loss"][-4:] *= 1.01
    assert "4 rows repeat the settings of another one" in found(again)["repeats"]
    assert "repeats" not in found({**again, "seed": np.arange(34)})


def test_a_label_that_is_unique_does_not_hide_repeats(clean) -> None:
    rng = np.random.default_rng(0)
    table = {name: np.tile(values, 3) for name, values in clean.items()}
    table["loss"] = table["loss"] * np.exp(0.004 * rng.standard_normal(90))
    table |= {"seed": np.repeat([0, 1, 2], 30), "run": [f"run {i}" for i in range(90)], "wall_hours": rng.random(90)}
    noise = observations(table, get_law("hoffmann2022")).seed_noise()
    assert noise is not None
    assert noise["rel"] == pytest.approx(0.004, rel=0.3)
    assert noise["n_groups"] == 30


@pytest.mark.parametrize("name", ["Unnamed: 0", "Run Name", "created", "note"])
def test_labels_whatever_their_case_and_blanks(name) -> None:
    assert is_label(name)
    assert is_outcome(name, "loss")


def test_one_size_and_few_designs() -> None:
    tokens = np.geomspace(1e9, 1e11, 12)
    table = {"params_total": np.full(12, 1e8), "tokens": tokens, "loss": np.linspace(4, 3, 12)}
    assert "one size only (params_total is 1e+08 in every row)" in found(table)["one size"]
    table = {
        "params_total": np.repeat([1e8, 1e9], 6),
        "tokens": np.repeat([1e9, 1e10], 6),
        "loss": np.linspace(4, 3, 12),
    }
    assert "12 rows hold 2 designs only" in found(table)["designs"]


def test_several_tokenizers_and_texts(clean) -> None:
    text = found({**clean, "tokenizer": ["gpt2"] * 20 + ["llama"] * 10})["texts"]
    assert text.startswith("2 tokenizers (column tokenizer)")
    assert text.endswith("""keep one with --where "tokenizer = 'gpt2'\"""")
    assert (
        "2 tokenizers (column vocab_size)" in found({**clean, "vocab_size": [50257.0] * 20 + [32000.0] * 10})["texts"]
    )
    assert "3 texts (column dataset)" in found({**clean, "dataset": ["a", "b", "c"] * 10})["texts"]


def test_diverged_runs(clean) -> None:
    table = {**clean, "status": ["finished"] * 28 + ["diverged"] * 2}
    assert found(table)["diverged"].endswith("""--where "status = 'finished'\"""")
    loss = np.array(clean["loss"])
    loss[3] = 11.0
    assert "1 of 30 rows look diverged (row 4: loss 11" in found({**clean, "loss": loss})["diverged"]


@pytest.mark.parametrize(
    ("states", "condition"),
    [
        (["finished"] * 28 + ["crashed", "failed"], "State = 'finished'"),
        (["finished"] * 20 + ["ok"] * 8 + ["crashed", "Killed"], "State NOT IN ('crashed', 'Killed')"),
        (["finished"] * 20 + [""] * 9 + ["crashed"], "State != 'crashed'"),
    ],
)
def test_every_failed_state_is_left_out(states, condition, clean) -> None:
    table = {**clean, "State": states}
    text = found(table)["diverged"]
    assert text.endswith(f'leave them out with --where "{condition}"')
    assert found(load_table(pl.DataFrame(table), where=[condition])) == {}


def test_unfinished_runs(clean) -> None:
    table = {**clean, "State": ["finished"] * 27 + ["running", "running", "crashed"]}
    notes = found(table)
    assert notes["running"].startswith("2 of 30 rows are runs that State calls running: not finished")
    assert notes["diverged"].startswith("1 of 30 rows are runs that State calls crashed;")
    assert all(note.endswith("--where \"State = 'finished'\"") for note in notes.values())


def mended_by_where(table: dict[str, Any]) -> pl.DataFrame:
    """The table with what its note on diverged runs suggests."""
    where = re.search(r'--where "(.*)"$', found(table)["diverged"])
    assert where is not None
    return load_table(pl.DataFrame(table), where=[where[1]])


@pytest.mark.parametrize("level", [7.2, 1.5])
def test_runs_that_diverged_below_an_untrained_loss(level, clean) -> None:
    """Diverged runs end near 7 nats, or at half as much again as their neighbours."""
    off = np.isin(np.arange(30), [3, 17])
    table = {**clean, "loss": np.where(off, level if level > 2 else level * clean["loss"], clean["loss"])}
    assert "2 of 30 rows look diverged (rows 4, 18: loss" in found(table)["diverged"]
    assert mended_by_where(table)["loss"].to_list() == clean["loss"][~off].tolist()


def test_all_diverged_runs_are_left_out(clean) -> None:
    table = {**clean, "loss": np.where(np.arange(30) > 27, [9.9] * 29 + [11.2], clean["loss"])}
    assert len(mended_by_where(table)) == 28


def test_diverged_runs_of_slices() -> None:
    law = get_law("hoffmann2022")
    flops = np.repeat([1e18, 3e18, 1e19, 3e19], 9)
    params = 0.3 * np.sqrt(flops / 6) * np.tile(np.exp(np.linspace(-1.5, 1.5, 9)), 4)
    runs = {"params_active": params, "tokens": flops / 6 / params, "train_flops": flops}
    loss = law.loss(None, {"params_total": params, "tokens": runs["tokens"]})
    assert found({**runs, "loss": loss}) == {}
    off = np.isin(np.arange(36), [0, 13])
    assert "rows 1, 14" in found({**runs, "loss": np.where(off, 7.5, loss)})["diverged"]


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
    "marin2026/runs.csv": ("paloma_macro", {"missing", "names"}),
    "flame2025/runs.csv": ("loss", {"names"}),
}
"""Checks that rightly find something in a public table: columns under other names, repeated data, missing losses."""


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
