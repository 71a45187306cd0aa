"""Which runs decide the optimum: against fits that leave out each run, or each group, in turn."""

import json

import numpy as np
import pytest

from moelab.fitting import load_fits, save_fits
from moelab.fitting.fit import fit
from moelab.fitting.fit_file import fit_to_json
from moelab.fitting.influence import Influence, Left
from moelab.laws import get_law
from moelab.laws.optimum import optimum

DENSE = get_law("hoffmann2022")


def optimum_without(table, rows, law, flops) -> float:
    """The best size of a law fitted again without some rows."""
    kept = {name: np.delete(np.asarray(values), rows) for name, values in table.items()}
    again = fit(kept, law, bootstrap=0, starts=4, group="none" if "run" not in kept else None)
    return optimum(law, flops, None, again.coefficients).values["params_total"]


def test_the_runs_named_are_those_that_move_the_optimum_most(synthetic) -> None:
    table = synthetic(DENSE, DENSE.published, 24, 0.01)
    table["loss"][5] *= 1.15  # one run that is far off
    found = fit(table, DENSE, bootstrap=40, starts=4, objective="squared").influence
    assert found.flops == pytest.approx(10 * 6 * np.max(table["params_total"] * table["tokens"]), rel=0.01)
    by_hand = []
    for row in range(24):
        kept = {name: np.delete(values, row) for name, values in table.items()}
        again = fit(kept, DENSE, bootstrap=0, starts=1, objective="squared").coefficients
        by_hand.append(optimum(DENSE, found.flops, None, again).values["params_total"] / found.value - 1)
    order = np.argsort(-np.abs(np.log1p(by_hand)))
    assert [each.rows for each in found.left] == [(int(row) + 1,) for row in order[:5]]
    assert [each.change_rel for each in found.left] == pytest.approx([by_hand[row] for row in order[:5]], rel=0.02)
    assert found.left[0].label == f"row {order[0] + 1}"


def test_groups_are_left_out_whole(synthetic) -> None:
    table = synthetic(DENSE, DENSE.published, 24, 0.01)
    table |= {"run": np.repeat(["a", "b", "c", "d"], 6)}
    found = fit(table, DENSE, bootstrap=20, starts=4, group="run").influence
    assert {each.label for each in found.left} == {"a", "b", "c", "d"}
    assert all(each.n_runs == 6 for each in found.left)
    worst = found.left[0]
    rows = np.flatnonzero(np.asarray(table["run"]) == worst.label)
    assert worst.rows == tuple(rows + 1)
    assert worst.value == pytest.approx(optimum_without(table, rows, DENSE, found.flops), rel=0.02)


@pytest.mark.parametrize("reverse", [False, True])
def test_the_largest_run_is_taken_at_its_last_checkpoint(synthetic, reverse) -> None:
    """Checkpoints of a run share its place in a hold-out; the compute is the last one's, in any order of rows."""
    sizes, shares = np.repeat([1e8, 2e8, 4e8, 8e8], 5), np.tile([0.1, 0.2, 0.4, 0.7, 1.0], 4)
    table = {"params_total": sizes, "tokens": 48 * sizes * shares, "run": np.repeat(["a", "b", "c", "d"], 5)}
    table["loss"] = np.array(DENSE.loss(DENSE.published, table))
    table["loss"] *= np.exp(0.003 * np.random.default_rng(0).standard_normal(20))
    if reverse:
        table = {name: values[::-1] for name, values in table.items()}
    found = fit(table, DENSE, bootstrap=10, starts=4).influence
    assert found.flops == pytest.approx(10 * 6 * 8e8 * 48 * 8e8, rel=0.01)


def test_a_law_without_a_compute_is_judged_by_its_prediction(synthetic) -> None:
    law = get_law("clark2022-sbase")
    table = synthetic(law, law.published, 30, 0.01)
    found = fit(table, law, bootstrap=40, starts=16).influence
    assert found.flops is None
    assert found.quantity == "loss"
    assert "10 times the largest run" in found.title
    largest = int(np.argmax(table["params_active_non_embedding"]))
    assert found.design["params_active_non_embedding"] == 10 * table["params_active_non_embedding"][largest]


def test_large_tables_are_estimated_in_the_same_order(synthetic, monkeypatch) -> None:
    table = synthetic(DENSE, DENSE.published, 60, 0.01)
    exact = fit(table, DENSE, bootstrap=20, starts=2, objective="squared").influence
    monkeypatch.setattr("moelab.fitting.left_out.MOST_REFITTED", 10)
    quick = fit(table, DENSE, bootstrap=20, starts=2, objective="squared").influence
    assert not any(each.refitted for each in quick.left)
    assert len({each.rows for each in quick.left} & {each.rows for each in exact.left}) >= 4
    assert quick.left[0].change_rel == pytest.approx(exact.left[0].change_rel, rel=0.5)


@pytest.mark.parametrize(("change", "expected"), [(0.0004, []), (-0.004, ["-0.4%"]), (0.3, ["+30.0%"]), (0.0001, [])])
def test_a_note_names_changes_that_can_be_read(change, expected) -> None:
    left = Left(label="row 4", rows=(4,), n_runs=1, value=1e9, change_rel=change, refitted=True)
    found = Influence(
        quantity="params_total", flops=1e21, design={}, value=1e9, half_width_rel=0.0002 * 1.5, left=(left,)
    )
    notes = found.note()
    assert len(notes) == len(expected)
    assert all(f"moves by {text}" in note and "0.0%)" in note for text, note in zip(expected, notes, strict=True))


def test_one_run_that_decides_is_a_note_and_the_file_keeps_it(synthetic, tmp_path) -> None:
    table = synthetic(DENSE, DENSE.published, 16, 0.002)
    table["params_total"][3], table["tokens"][3] = 40 * table["params_total"].max(), table["tokens"].max()
    table["loss"] = np.array(DENSE.loss(DENSE.published, table))
    table["loss"][3] *= 1.1
    fitted = fit(table, DENSE, bootstrap=40, starts=4, objective="squared")
    assert fitted.influence.left[0].rows == (4,)
    worst, width = abs(fitted.influence.left[0].change_rel), fitted.influence.half_width_rel
    assert bool(fitted.influence.note()) == (worst > width)
    save_fits({"hoffmann2022": fitted}, tmp_path / "fit.json")
    assert load_fits(tmp_path / "fit.json")["hoffmann2022"].influence == fitted.influence
    assert json.loads(json.dumps(fit_to_json(fitted)))["influence"]["left"][0]["label"] == "row 4"
