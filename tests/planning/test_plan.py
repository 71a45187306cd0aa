"""The contents of a plan: uncertainty, binding limits, several laws, the JSON contract, input that cannot be met."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moelab.errors import InputError
from moelab.fitting import FittedLaw
from moelab.fitting.predict import predict
from moelab.laws import get_law
from moelab.planning import Budget, Plan, Space
from moelab.planning.given_laws import predictors_of
from moelab.planning.lattice import enumerate_designs
from moelab.planning.near import near_space
from moelab.planning.pareto import pareto_front
from moelab.planning.plan import plan
from moelab.planning.plan_table import layers_note
from moelab.planning.result import candidate_rows, pareto_rows
from moelab.planning.search import search
from moelab.quantities import format_number

JOINT, ABNAR = get_law("ludziejewski2025"), get_law("abnar2025")


def test_published_laws_rank_by_excess_compute(tiny: Space) -> None:
    space = Space(d_model=(512, 1024, 2048), n_layers=(8, 16, 24), n_experts=(8, 32), top_k=(1, 2))
    result = plan(Budget(flops=1e20), [JOINT, ABNAR], space)
    assert result.p_moe_beats_dense is None
    assert result.best.regret_loss.low is None
    assert result.best.mean_loss is None
    excess = [result.best.loss[law].behind_compute for law in result.ensemble]
    assert result.best.regret_compute.value == pytest.approx(
        1 - np.exp(np.mean([np.log1p(-e) for e in excess])), abs=1e-6
    )
    for law in result.ensemble:
        assert result.choices[law].loss[law].behind_compute == pytest.approx(0, abs=1e-9)


def test_excess_compute_is_the_compute_that_a_laws_optimum_saves() -> None:
    space = Space(d_model=(512, 768, 1024, 1536, 2048), n_layers=tuple(range(8, 33, 2)), n_experts=(8,), top_k=(2,))
    result = plan(Budget(flops=1e20), [JOINT], space)
    dense = result.best_dense
    assert dense is not None
    share = 1 - dense.regret_compute.value
    cheaper = plan(Budget(flops=1e20 * share), [JOINT], space)
    assert cheaper.best.loss[JOINT.id].value == pytest.approx(dense.loss[JOINT.id].value, rel=1e-3)


def test_a_law_that_does_not_apply_gives_its_reason(tiny: Space) -> None:
    space = Space(d_model=(1024,), n_layers=(16,), n_experts=(16,), top_k=(2,))
    result = plan(Budget(flops=1e20), [JOINT, get_law("krajewski2024"), get_law("hoffmann2022")], space)
    assert result.best.is_moe
    assert "expansion of 64 only" in (result.best.loss["krajewski2024"].not_covered or "")
    assert result.best.loss["hoffmann2022"].value is None
    assert result.ensemble == ["ludziejewski2025"]
    with pytest.raises(InputError, match="hoffmann2022: this law describes dense models only"):
        plan(Budget(flops=1e20), [get_law("hoffmann2022")], space.replace(kinds=["moe"]))
    with pytest.raises(InputError, match="predicts leverage"):
        plan(Budget(flops=1e20), [get_law("tian2025")], space)
    with pytest.raises(InputError, match="yun2024 has no published coefficients"):
        plan(Budget(flops=1e20), [get_law("yun2024")], space)


def test_binding_limits_and_the_gain_from_raising_them(tiny: Space) -> None:
    result = plan(Budget(flops=5e13, unique_tokens=1e6, max_epochs=1, max_params=2e5), [JOINT], tiny)
    assert "data" in result.binding
    assert "compute" not in result.binding
    assert result.best.epochs == pytest.approx(1)
    assert result.best.train_flops < 5e13
    freed = plan(Budget(flops=5e13, unique_tokens=1.1e6, max_epochs=1, max_params=2e5), [JOINT], tiny)
    saved = result.best.loss[JOINT.id].value - freed.best.loss[JOINT.id].value
    assert result.sensitivity["data"]["gain_loss"] == pytest.approx(saved, rel=0.05)


def test_a_law_of_one_number_of_tokens_reports_that_its_window_binds() -> None:
    law = get_law("clark2022-hash")
    space = Space(d_model=(1024, 1536, 2048), n_layers=(16, 24), n_experts=(16, 64), top_k=(1,), n_shared_experts=(0,))
    result = plan(Budget(flops=1e21), [law], space)
    assert 104e9 <= result.best.tokens <= 162.5e9
    assert "range.clark2022-hash" in result.binding
    assert any(line.startswith("clark2022-hash: the optimum lies beyond the fitted range") for line in result.warnings)


@given(st.floats(12, 14), st.floats(1.2, 10))
def test_more_compute_never_hurts(log_flops: float, factor: float) -> None:
    space = Space.parse(
        {"d_model": [32, 64], "n_layers": [2, 4], "aspect": [8, 32], "head_dim": 16, "heads_per_kv": 1, "n_experts": 8,
         "top_k": 2, "d_expert_step": 8, "min_d_expert": 8, "vocab_size": 512, "seq_len": 128}
    )  # fmt: skip
    losses = [
        search(enumerate_designs(space), Budget(flops=10**log_flops * k), predictors_of([JOINT])).score.min()
        for k in (1, factor)
    ]
    assert losses[1] < losses[0]


def test_the_pareto_front_is_not_beaten(tiny: Space) -> None:
    ranking = search(enumerate_designs(tiny), Budget(flops=5e12), predictors_of([JOINT]))
    size, loss = ranking.feasible.lattice.params_total, ranking.score
    front = pareto_front(ranking)
    assert list(size[front]) == sorted(size[front])
    assert list(loss[front]) == sorted(loss[front], reverse=True)
    assert ranking.best in front


def test_the_recommendation_is_marked_in_the_trade_off(tiny: Space) -> None:
    served = {"hardware": "cpu", "tokens": 1e9, "traffic": {"prompt": 64, "output": 16}}
    lifetime = {"serving": served, "objective": "lifetime-cost", "target_loss": 8.0}
    for limits in ({}, {"max_params": 2e5}, {"serving": served}, lifetime):
        result = plan(Budget.parse({"flops": 5e12, **limits}), [JOINT], tiny, top=3)
        rows = pareto_rows(result)
        marked = [row for row in rows if row["recommended"]]
        assert [row["label"] for row in marked] == [result.best.label]
        assert len(rows) - len(result.pareto) in (0, 1)
        assert "ring: recommended" in json.dumps(result.plot("pareto").to_dict())
    # All train to the same loss, so what is traded is the lifetime cost: the recommended design is near-equal to the
    # cheapest, within 1 %.
    assert marked[0]["loss"] == pytest.approx(result.best.cost["lifetime"])
    assert marked[0]["loss"] <= min(row["loss"] for row in rows) * 1.0101


def test_slices_hold_the_best_of_each_rate_and_dense_by_itself(tiny: Space) -> None:
    rows = plan(Budget(flops=5e12), [JOINT], tiny, extrapolate=True).slices["activation_rate"]
    field = search(enumerate_designs(tiny), Budget(flops=5e12), predictors_of([JOINT], extrapolate=True))
    dense = ~field.feasible.lattice.is_moe
    assert {row["activation_rate"] for row in rows if row["activation_rate"] >= 1} == {1.0}
    assert [row["loss"] for row in rows if row["activation_rate"] == 1] == [pytest.approx(field.score[dense].min())]
    assert min(row["loss"] for row in rows) == pytest.approx(field.score.min())


def test_the_table_tells_designs_apart_by_their_dense_layers(tiny: Space) -> None:
    """Layers by width, dense ones first, with a line that explains the sum; the first sentence has them too."""
    moe = tiny.replace(kinds=("moe",))
    found = plan(Budget(flops=3e12), [get_law("ludziejewski2025")], moe, extrapolate=True, top=1)
    layers, width = 4, found.best.config.d_model

    def changed(**options: int) -> Plan:
        config = found.best.config.replace(n_layers=layers, **options)
        return replace(found, candidates=[replace(found.best, config=config)])

    for options, cell in (
        ({"n_dense_layers": 0}, f"4x{width}"),
        ({"n_dense_layers": 1}, f"1+3x{width}"),
        ({"n_dense_layers": 2, "moe_every": 2}, f"2+2x{width} (1 MoE)"),
        ({"n_dense_layers": 0, "moe_every": 2}, f"4x{width} (2 MoE)"),
    ):
        columns, rows = changed(**options).table()
        assert rows[0][columns.index("layers")] == cell
    one = changed(n_dense_layers=1)
    assert layers_note(one.candidates) == f"Layers 1+3x{width}: 1 dense layer, then 3 MoE layers, of width {width}."
    assert f"({layers} layers of width {width}, the first dense)" in one.sentence
    assert layers_note(changed(n_dense_layers=0).candidates) == ""
    half, later = changed(n_dense_layers=0, moe_every=2), changed(n_dense_layers=2, moe_every=2)
    assert layers_note(half.candidates) == f"Layers 4x{width} (2 MoE): 4 layers, 2 of them MoE, of width {width}."
    assert f"({layers} layers of width {width}, 2 of them MoE)" in half.sentence
    assert "2 dense layers, then 2 layers, 1 of them MoE" in layers_note(later.candidates)


def test_a_plan_names_its_vocabulary_and_what_sets_it(tiny: Space) -> None:
    law = get_law("ludziejewski2025")
    found = plan(Budget(flops=3e12), [law], tiny, extrapolate=True)
    assert "searched), all with a vocabulary of 512 (vocab_size in --space sets it)." in found.sentence
    assert Space.parse({"vocab_size": 151_936}).vocab_size == 151_936
    near = plan(Budget(flops=1e22), [law], near_space("qwen3-30b-a3b"))
    assert "searched), all with a vocabulary of 151,936." in near.sentence


def test_json_contract(tiny: Space, fits: list[FittedLaw]) -> None:
    serving = {"hardware": "cpu", "tokens": 1e9, "traffic": {"prompt": 64, "output": 16}}
    result = plan(Budget.parse({"flops": 5e12, "serving": serving}), fits, tiny, top=3)
    value = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    keys = {
        "config", "params_total", "params_active", "params_non_embedding", "activation_rate", "n_experts", "top_k",
        "granularity", "tokens", "unique_tokens", "epochs", "train_flops", "loss", "regret_loss", "regret_compute",
        "memory_bytes", "serving", "learning_rate", "batch_tokens",
    }  # fmt: skip
    for design in (*value["candidates"], value["best_dense"]):
        assert keys <= set(design)
        assert {"value", "low", "high", "extrapolation"} <= set(design["loss"]["abnar2025"])
        assert design["serving"]["gpus"] == 1
    assert isinstance(value["near_equal"], int)
    assert 0 <= value["p_moe_beats_dense"] <= 1
    assert isinstance(value["binding"], list)
    assert isinstance(value["warnings"], list)
    kind = "a MoE model of" if result.best.is_moe else "a dense model of"
    assert result.sentence.startswith(f"Train {kind} ")
    assert "FLOPs (attention as the full square; " in result.sentence


@pytest.mark.parametrize(("shape", "differs"), [((2048, 16), True), ((1536, 24), False)])
def test_losses_of_fewer_tokens_than_trained_are_stated(shape: tuple[int, int], differs: bool) -> None:
    """`predict` gives the plan's loss at the tokens that count for it. Of a deep model they are 135.5B of 136.2B, which
    print alike."""
    space = Space(d_model=shape[:1], n_layers=shape[1:], kinds=("dense",), ffn_ratio=(4,))
    result = plan(Budget(flops=1e21), [JOINT], space)
    best = result.best
    value = predict(JOINT, best.config, tokens=best.loss_tokens, seq_len=space.seq_len).only.value
    assert best.loss[JOINT.id].value == pytest.approx(value, rel=1e-7)
    assert result.to_dict()["candidates"][0]["loss_tokens"] == best.loss_tokens
    assert best.loss_tokens < best.tokens
    assert (format_number(best.loss_tokens) != format_number(best.tokens)) == differs
    words = f"; losses are of {format_number(best.loss_tokens)} tokens, because "
    assert (words in result.sentence) == ("losses are of" in result.sentence) == differs


def test_utilisation_by_expert_width_can_change_the_choice() -> None:
    space = Space(d_model=(1024,), n_layers=(16,), n_experts=(32,), top_k=(1, 8), n_shared_experts=(0,), ffn_ratio=(4,))
    machine: dict[str, Any] = {"gpus": 64, "days": 3, "train_hardware": "h100"}
    law = get_law("krajewski2024")
    wide = plan(Budget.parse({**machine, "mfu": 0.4}), [JOINT], space)
    table = {"dense": 0.4, "experts": {512: 0.05, 4096: 0.4}}
    slow = plan(Budget.parse({**machine, "mfu": table}), [JOINT], space)
    fine = next(c for c in slow.candidates if c.top_k == 8)
    assert fine.train_flops == pytest.approx(wide.best.train_flops / 8, rel=1e-6)
    assert law.covers_moe
    assert slow.best.top_k == 1


def test_the_best_dense_design_has_no_rank_in_the_figure() -> None:
    result = plan(Budget(flops=1e20), [JOINT], Space(d_model=(1024,), n_layers=(16,)), top=1)
    assert result.best.is_moe
    labels = [row["label"] for row in candidate_rows(result)]
    assert labels[0].startswith("1. ")
    assert labels[1].startswith("best dense: ")
