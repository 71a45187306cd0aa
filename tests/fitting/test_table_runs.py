"""What a table's rows are before a fit: checkpoints, sweeps, repeats, runs that diverged or are unfinished."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from moelab.errors import InputError
from moelab.fitting.fit import fit
from moelab.fitting.observations import observations
from moelab.fitting.table_checks import check_table
from moelab.fitting.table_columns import is_label, is_outcome
from moelab.fitting.table_rows import best_rows
from moelab.laws import get_law
from moelab.runs.table import load_table

V0_1 = Path(__file__).parents[1] / "fixtures" / "v0_1"


def found(table: Any, loss: str | None = None) -> dict[str, str]:
    return {finding.check: str(finding) for finding in check_table(table, loss)}


def test_tokens_that_follow_the_size_and_losses_that_rise(clean) -> None:
    assert found({**clean, "tokens": 20 * clean["params_total"]})["one ratio"].startswith(
        "tokens follow params_total (about 20 per parameter)"
    )
    assert found({**clean, "loss": 9 - clean["loss"]})["rising"].startswith("loss rises with parameters and tokens")
    fitted = fit({**clean, "tokens": 20 * clean["params_total"]}, "hoffmann2022", bootstrap=20, starts=4)
    assert fitted.unidentified
    assert fitted.influence.flops is None  # no optimum is these runs' own
    assert "this optimum is not theirs" in fitted.optimum(1e21).notes[0]


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
    whole, named, by_row = (
        fit(table, law, group=group, bootstrap=50 if name == "run" else 2, starts=2).draws
        for group in (None, name, "none")
    )
    assert np.array_equal(whole, named)
    assert not np.array_equal(whole, by_row)
    if name == "run":
        widths = [np.ptp(np.quantile(draws[:, 2], [0.1, 0.9])) for draws in (whole, by_row)]
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
    named = {**again, "name": [f"run {i}" for i in range(34)], "seed": np.arange(34) % 30}
    text = found(named)["copies"]
    assert text.startswith("4 of 34 rows are copies of another row in every setting and in loss, to the last digit")
    assert text.endswith("--best-of params_total,seed")
    rounded = {**named, "loss": np.round(again["loss"], 2)}
    assert "copies" not in found(rounded)
    notes = fit(again, "hoffmann2022", bootstrap=0, starts=1).notes
    assert len([note for note in notes if "copies" in note or "repeat" in note]) == 1
    again["loss"][-4:] *= 1.01
    assert "4 rows repeat the settings of another one" in found(again)["repeats"]
    assert "repeats" not in found({**again, "seed": np.arange(34)})


def test_files_whose_losses_differ(clean) -> None:
    files = pl.DataFrame({**clean, "file": ["a.csv"] * 30})
    other = files.with_columns(pl.col("loss") * 1.05, file=pl.lit("b.csv"))
    text = found(pl.concat([files, other]))["repeats"]
    assert text.startswith(
        "30 rows repeat the settings of another one with another loss from another file (a.csv, b.csv)"
    )
    assert """keep one file with --where "file = 'a.csv'\"""" in text
    assert "copies" in found(pl.concat([files, files.with_columns(file=pl.lit("b.csv"))]))


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
    for name in ("val_set", "eval_data", "Validation Set", "test_split", "val_domain"):
        assert f"2 validation texts (column {name})" in found({**clean, name: ["a", "b"] * 15})["texts"]
    for name in ("data_mix", "train_data", "corpus_name", "pretraining_corpus"):
        assert f"2 texts (column {name})" in found({**clean, name: ["a", "b"] * 15})["texts"]
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


@pytest.mark.parametrize("layout", ["revision", "model", "name", "path"])
def test_checkpoints_as_a_hub_lays_them_out(layout) -> None:
    law = get_law("hoffmann2022")
    params, share = np.repeat(np.geomspace(3e7, 3e9, 5), 8), np.tile(np.arange(1, 9), 5)
    table = {"params_total": params, "tokens": params * 20 * share / 8}
    table["loss"] = law.loss(None, table) * np.exp(0.003 * np.random.default_rng(0).standard_normal(40))
    model, step = np.repeat([f"pythia-{i}m" for i in range(5)], 8), share * 1000
    if layout == "revision":
        table |= {"model": model, "revision": np.array([f"step{i}" for i in step])}
    elif layout == "path":
        table |= {"checkpoint": np.array([f"out/{m}/checkpoint-{s}" for m, s in zip(model, step, strict=True)])}
    else:
        table |= {layout: np.array([f"{m}-step{s}" for m, s in zip(model, step, strict=True)])}
    column = {"revision": "model", "path": "checkpoint"}.get(layout, layout)
    assert f"40 rows are checkpoints of 5 runs (column {column})" in found(table)["checkpoints"]
    grouped = observations(table, law)
    assert grouped.groups is not None
    assert len(np.unique(grouped.groups)) == 5
    assert len(np.unique(grouped.order)) == 5


def test_models_at_several_budgets_are_no_checkpoints(clean) -> None:
    """Whole runs of one size, named by their model: nothing shows that one goes on from another."""
    table = {**clean, "params_total": np.repeat([1e8, 3e8, 1e9], 10), "tokens": np.tile(np.geomspace(1e9, 1e11, 10), 3)}
    table |= {"loss": get_law("hoffmann2022").loss(None, table), "model": np.repeat(["small", "middle", "large"], 10)}
    assert "checkpoints" not in found(table)


def test_diverged_checkpoints_are_noted(clean) -> None:
    law = get_law("hoffmann2022")
    params = np.repeat(np.geomspace(3e7, 3e9, 6), 8)
    table = {"params_total": params, "tokens": params * 20 * np.tile(np.arange(1, 9), 6) / 8}
    table |= {"loss": law.loss(None, table), "run": np.repeat([f"m{i}" for i in range(6)], 8)}
    assert "diverged" not in found(table)
    table["loss"][[29, 30, 31]] = 7.4
    assert "3 of 48 rows look diverged (rows 30 to 32: loss 7.4, median" in found(table)["diverged"]


def test_one_budget_is_neither_one_ratio_nor_an_accuracy() -> None:
    law, params = get_law("hoffmann2022"), np.geomspace(1.5, 12, 8) * 2.28e8
    table = {"params_active": params, "tokens": 1e19 / 6 / params}
    loss = law.loss(None, {"params_total": params, "tokens": table["tokens"]})
    assert found({**table, "train_flops": np.full(8, 1e19), "loss": loss}) == {}
    ratio = {"params_total": params, "tokens": 20 * params, "loss": np.sort(loss)[::-1]}
    assert "tokens follow params_total (about 20 per parameter)" in found(ratio)["one ratio"]
    assert "loss rises with parameters and tokens" in found({**ratio, "loss": np.sort(loss)})["rising"]
