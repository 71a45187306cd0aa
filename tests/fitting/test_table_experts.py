"""MoE runs without a column of their experts: a note, and none where the experts are given or the runs are dense."""

import numpy as np
import pytest

import moelab
from moelab.fitting.predict import predict
from moelab.fitting.table_checks import check_table
from moelab.fitting.table_columns import suggestions
from moelab.fitting.table_experts import width_notes
from moelab.laws import get_law


def runs(share: float, **more: object) -> dict[str, object]:
    total = np.array([1e8, 2e8, 4e8, 8e8])
    return {"params_total": total, "params_active": share * total, "tokens": np.array([2e9, 9e9, 3e9, 7e9]),
            "loss": np.array([3.4, 3.0, 2.9, 2.6])} | more  # fmt: skip


def found(table: dict[str, object]) -> list[str]:
    return [finding.text for finding in check_table(table) if finding.check == "experts"]


def test_fewer_active_parameters_without_experts_are_noted() -> None:
    assert len(found(runs(0.3))) == 1
    assert "4 of 4 runs" in found(runs(0.3))[0]


@pytest.mark.parametrize("table", [runs(1.0), runs(0.9), runs(0.3, n_experts=np.full(4, 32), top_k=np.full(4, 2))])
def test_dense_runs_and_given_experts_are_not(table: dict[str, object]) -> None:
    assert found(table) == []


def test_grouped_columns_of_a_tracker_are_suggested() -> None:
    near = suggestions(["model/num_experts", "model/top_k", "model.total_params", "train.tokens", "eval/loss"])
    assert {name: column for name, (column, _) in near.items()} == {
        "n_experts": "model/num_experts", "top_k": "model/top_k", "params_total": "model.total_params",
        "tokens": "train.tokens", "loss": "eval/loss",
    }  # fmt: skip


def test_a_granularity_that_no_column_gives_is_noted() -> None:
    ours, joint = get_law("moelab2026"), get_law("ludziejewski2025")
    table = {name: np.asarray(values) for name, values in runs(0.3, top_k=np.array([1, 2, 2, 2])).items()}
    assert "up to 2" in width_notes(table, ours)[0]
    assert width_notes(table, joint) == []  # no variable of this law
    assert width_notes({**table, "granularity": np.full(4, 1.0)}, ours) == []
    assert width_notes({**table, "top_k": np.ones(4)}, ours) == []
    assert width_notes({name: values for name, values in table.items() if name != "top_k"}, ours) == []


def test_widths_that_give_another_granularity_are_noted() -> None:
    """The dense feed-forward's width decides nothing by itself: it may be that of other layers."""
    law = get_law("moelab2026")
    table = {name: np.asarray(values) for name, values in runs(0.3, top_k=np.array([1, 2, 2, 2])).items()}
    wide = {**table, "d_ff": np.full(4, 4096.0), "d_expert": np.array([4096.0, 2048, 1024, 512])}
    (note,) = width_notes(wide, law)
    assert "d_ff / d_expert is up to 8; --let 'granularity = d_ff / d_expert'" in note
    as_taken = {**wide, "d_expert": np.array([np.nan, 2048, 2048, 2048])}
    assert "otherwise give a column granularity" in width_notes(as_taken, law)[0]
    assert width_notes({**wide, "granularity": np.ones(4)}, law) == []


def test_a_prediction_says_where_its_granularity_comes_from() -> None:
    table = {name: np.tile(values, 3) for name, values in runs(0.3, n_experts=np.full(4, 8.0)).items()}
    fitted = moelab.fit({**table, "top_k": np.ones(12)}, "moelab2026", bootstrap=0)
    at = {"params_active": 1e8, "tokens": 5e9, "n_experts": 8, "top_k": 2}
    line = "granularity is taken to be the number of active experts (2), as if these together were as wide as a dense"
    assert any(note.startswith(line) and "otherwise set granularity" in note for note in predict(fitted, **at).notes)
    for more in ({"granularity": 2}, {"top_k": 1}):
        assert not any("granularity is taken" in note for note in predict(fitted, **{**at, **more}).notes)
    assert not any("granularity is taken" in note for note in predict("ludziejewski2025", **at).notes)
