"""Released models beside a plan: the nearest in size, by the same laws."""

import numpy as np
import pytest

from moelab.architecture import count_flops
from moelab.architecture.presets import load_preset
from moelab.architecture.released import released_models
from moelab.laws.design import Design
from moelab.planning import Budget, Space
from moelab.planning.cells import released_cells
from moelab.planning.chosen_laws import laws_of
from moelab.planning.credit import token_credit
from moelab.planning.given_laws import predictors_of
from moelab.planning.lattice import enumerate_designs
from moelab.planning.nearest import behind_chosen, nearest_released, released_rates
from moelab.planning.search import search

SPACE = Space(d_model=(2048,), n_layers=(16,), n_experts=(64,), top_k=(8,), vocab_size=50304)


def test_olmoe_is_nearest_to_its_own_shape_and_measured_by_the_same_law() -> None:
    budget = Budget(flops=1e22)
    ranking = search(enumerate_designs(SPACE), budget, predictors_of(laws_of(["ludziejewski2025"])))
    lattice = ranking.feasible.lattice
    chosen = int(
        np.argmin(np.abs(np.log(lattice.params_active / 1.28e9)) + np.abs(np.log(lattice.params_total / 6.92e9)))
    )
    rows = nearest_released(ranking, budget, chosen)
    assert rows[0]["name"] == "olmoe-1b-7b"
    config = load_preset("olmoe-1b-7b")
    tokens = 1e22 / count_flops(config, SPACE.seq_len).train
    assert rows[0]["tokens"] == pytest.approx(tokens)
    member = ranking.ensemble[0]
    read = tokens * float(token_credit(config, SPACE.seq_len))
    loss = member.loss(Design.of(config, np.array([read]), SPACE.seq_len))[0]
    assert rows[0]["extra_nats"] == pytest.approx(loss - ranking.mean(member, chosen))
    assert rows[0]["trained_tokens"] == pytest.approx(5.1e12)
    assert rows[0]["cost_per_million_tokens"] is None
    assert released_cells(rows[0])[2] == "5.1T"


def test_released_rates_are_of_the_kind_and_nearest_first_each_with_its_source() -> None:
    rows = released_rates(35e9, 500e9, True)
    assert {row["name"] for row in rows} == {"glm-4.5", "deepseek-v3", "kimi-k2"}
    assert released_rates(8e9, 8e9, False)[0]["name"] == "llama3-8b"
    published = [model for model in released_models().values() if model.learning_rate is not None]
    assert len(published) >= 8
    assert all(model.recipe and model.optimizer in ("AdamW", "Muon") for model in published)
    deepseek = released_models()["deepseek-v3"]
    assert (deepseek.learning_rate, deepseek.batch_tokens) == (2.2e-4, 15360 * 4096)


def test_both_numbers_of_a_released_model_come_from_the_same_laws_and_fewer_are_noted() -> None:
    """Kimi K2's 384 experts lie beyond some laws' runs: where one law is left, both numbers are that law's own."""
    budget = Budget(flops=1e22)
    three = ["abnar2025", "fivefactor2025", "ludziejewski2025"]
    ranking = search(enumerate_designs(SPACE), budget, predictors_of(laws_of(three)))
    chosen = ranking.best
    config = load_preset("kimi-k2")
    tokens = 1e22 / count_flops(config, SPACE.seq_len).train
    row = behind_chosen(ranking, Design.of(config, np.array([tokens]), SPACE.seq_len), chosen)
    assert row["of_laws"] == 3
    assert 0 < len(row["laws"]) < 3
    members = [member for member in ranking.ensemble if member.predictors[0].id in row["laws"]]
    design = Design.of(config, np.array([tokens]), SPACE.seq_len)
    nats = [float(member.loss(design)[0]) - float(ranking.mean(member, chosen)) for member in members]
    assert row["extra_nats"] == pytest.approx(np.median(nats))
    shown = {"name": "kimi-k2", "params_active": 1e9, "params_total": 2e9, "trained_tokens": None, "tokens": 1e9}
    cells = released_cells({**shown, **row, "cost_per_million_tokens": None})
    assert f"({len(row['laws'])} of 3 laws)" in cells[4]
    assert (
        "laws" not in released_cells({**shown, **row, "of_laws": len(row["laws"]), "cost_per_million_tokens": None})[4]
    )
