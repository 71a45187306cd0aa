"""MoE runs without a column of their experts: a note, and none where the experts are given or the runs are dense."""

import numpy as np
import pytest

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
