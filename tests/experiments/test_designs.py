"""Experiment designs plan the papers' runs, exactly counted; budgets that cannot be met are named in one line."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moelab.architecture import count_flops, count_parameters
from moelab.errors import InputError
from moelab.experiments import EXPERIMENT_DESIGNS, match_runs
from moelab.experiments.base import Budgeted
from moelab.runs import RunConfig, run_columns
from moelab.studies import StudyConfig
from moelab.studies.config import Stage
from moelab.studies.stages import carried

Plan = Callable[..., list[RunConfig]]


def test_isoflop_runs_cost_the_same(plan: Plan) -> None:
    runs = plan(
        {
            "name": "iso",
            "design": "isoflop",
            "flops": [2e11, 4e11],
            "sparsity": [0, 0.5, 0.75],
            "params_total": [40_000, 90_000],
            "top_k": 2,
        }
    )
    assert len(runs) == 12
    matches = {match.group: match for match in match_runs(runs) if match.column == "train_flops"}
    assert set(matches) == {"iso, 2e11 FLOPs", "iso, 4e11 FLOPs"}
    assert all(match.within and match.spread < 0.01 for match in matches.values())
    assert {run_columns(run)["sparsity"] for run in runs} == {0.0, 0.5, 0.75}
    for run in runs:
        aim = float(run.labels["aim_params_total"])
        assert run_columns(run)["params_total"] == pytest.approx(aim, rel=0.35)


@given(flops=st.floats(2e11, 5e12), ratio=st.floats(8, 40))
def test_tokens_per_parameter_and_flops_agree(plan: Plan, flops: float, ratio: float) -> None:
    (run,) = plan({"name": "iso", "design": "isoflop", "flops": flops, "tokens_per_param": ratio})
    columns = run_columns(run)
    assert columns["train_flops"] == pytest.approx(flops, rel=0.011)
    assert columns["tokens"] / columns["params_active"] == pytest.approx(ratio, rel=0.6)


def test_a_budget_of_too_few_steps_is_named(plan: Plan) -> None:
    with pytest.raises(InputError, match=r"study s, runs iso: flops: .* steps of 1,024 tokens.*at least 50") as error:
        plan({"name": "iso", "design": "isoflop", "flops": 1e9, "params_total": 40_000})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"design": "isoflp"}, "did you mean 'isoflop'"),
        ({"design": ["isoflop"]}, "design: expected one of grid, isoflop"),
        ({"design": "ladder", "tokens": 400_000, "sizes": []}, "x: .*sizes: needs at least one value"),
        ({"design": "isoflop", "flops": [], "params_total": 50_000}, "x: .*flops: needs at least one value"),
        ({"design": "repeats", "of": []}, "x: .*of: needs at least one value"),
        ({"set": {"train.seed": []}}, "x: .*set.train.seed: needs at least one value"),
        ({"design": "isoflop", "flops": 1e12, "params_totl": 3}, "did you mean 'params_total'"),
        ({"design": "isoflop", "flops": 1e12}, "params_total: give either"),
        ({"design": "isoflop", "flops": 1e12, "params_total": 10**9}, "params_total: 1B lies outside"),
        ({"design": "isoflop", "flops": 1e12, "params_total": 50_000, "sparsity": 0.6}, "not a whole number"),
        ({"design": "granularity", "granularity": [5], "expansion": 4, "tokens": 10**6}, "5 does not divide d_ff 96"),
        ({"design": "granularity", "granularity": [2], "expansion": 4}, "exactly one of flops, tokens"),
        ({"design": "expansion", "expansion": [1], "tokens": 10**6}, "at least 2"),
        ({"design": "equal_resources", "flops": 1e12}, "activation_rates: is required"),
        ({"design": "equal_resources", "flops": 1e12, "top_k": 1}, "top_k: needs activation_rates"),
        (
            {
                "design": "equal_resources",
                "flops": 1e12,
                "params_total": 150_000,
                "activation_rates": 0.4,
                "reuse_rates": 0.4,
            },
            "reuse_rates: needs reuse strict or loose",
        ),
        (
            {"design": "isoflop", "flops": 1e12, "params_total": 50_000, "moe": {"n_experts": 99}},
            "moe.n_experts: is set by the experiment design isoflop",
        ),
        (
            {"design": "mixture_of_tokens", "group_size": 4, "tokens": 10**6, "moe": {"router": "soft"}},
            "moe.router: is set by the experiment design mixture_of_tokens",
        ),
        ({"set": {"train.seed": 1}, "zip": {"train.seed": [2]}}, "zip.train.seed: sets train.seed, and so does set"),
        ({"set": {"train": {"seed": 1}, "train.seed": 2}}, "set.train.seed: sets train.seed, and so does set.train;"),
        (
            {"design": "expansion", "expansion": [2], "tokens": 10**6, "sizes": [{"moe": {"n_experts": 3}}]},
            "sizes.0.moe: the experiment design expansion sets the experts",
        ),
        (
            {"design": "ladder", "tokens": 10**6, "branch": False, "decay_fraction": 0.1},
            "decay_fraction: only branches",
        ),
        (
            {"design": "equal_resources", "flops": 1e12, "params_total": 150_000, "activation_rates": 0.01},
            "activation_rates: 0.01 at 150K",
        ),
        ({"design": "repeats", "of": ["other"]}, "no entry 'other' stands before"),
        ({"design": "mixture_of_tokens", "group_size": 3, "tokens": 10**6}, "group_size: 3 does not divide the 8"),
        ({"design": "ladder", "tokens": [60_000], "decay_fraction": 0.99}, "within the warm-up"),
        ({"set": {"parent.step": 3}}, "set.parent.step: a study's runs start from nothing"),
        ({"zip": {"parent": [{"run": "0123456789abcdef", "step": 3}]}}, "zip.parent: a study's runs start from"),
        ({"name": ""}, "name: must not be empty"),
    ],
)
def test_what_cannot_be_met_is_named(plan: Plan, entry: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        plan({"name": "x", **entry})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (
            {"design": "granularity", "granularity": [1, 2, 1], "expansion": 4, "tokens": 10**6},
            "granularity: 1",
        ),
        ({"design": "expansion", "expansion": [2], "tokens": ["1M", 10**6]}, "tokens: 1000000"),
        ({"design": "isoflop", "flops": [1e12, "1e12"], "params_total": 50_000}, "flops: 1e\\+12"),
        ({"design": "isoflop", "flops": 1e12, "params_total": 50_000, "sparsity": [0.5, 0.5]}, "sparsity: 0.5"),
        (
            {"design": "equal_resources", "flops": 1e12, "params_total": 150_000, "activation_rates": [0.4, 0.4]},
            "activation_rates: 0.4",
        ),
        ({"design": "equal_resources", "flops": 1e12, "reuse": ["strict", "strict"]}, "reuse: strict"),
        ({"design": "ladder", "tokens": 10**6, "sizes": [{"d_ff": 8}, {"d_ff": 8}]}, "sizes: {'d_ff': 8}"),
        ({"design": "learning_rate", "tokens": 10**6, "learning_rate": [0.01, 0.01]}, "learning_rate: 0.01"),
        ({"design": "repeats", "of": ["a", "a"]}, "of: a"),
        ({"set": {"train.seed": [0, 1, 0]}}, "set.train.seed: 0"),
        (
            {"zip": {"train.seed": [0, 0], "train.tokens": [1, 1]}},
            "zip .train.seed, train.tokens.: a run: .0, 1.",
        ),
    ],
)
def test_what_is_given_twice_is_refused(plan: Plan, entry: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=f"x: .*{message} appears twice") as error:
        plan({"name": "x", **entry})
    assert "\n" not in str(error.value)


def test_the_guide_names_what_every_design_requires() -> None:
    guide = (Path(__file__).parents[2] / "docs" / "studies.md").read_text(encoding="utf-8")
    for name, design in EXPERIMENT_DESIGNS.items():
        if name == "grid":
            continue
        (row,) = [line for line in guide.splitlines() if line.startswith(f"| `{name}` | ")]
        required = [field for field, info in design.model_fields.items() if info.is_required() and field != "name"]
        assert all(f"`{field}`" in row.split("|")[2] for field in required), row
        assert ("budget" in row.split("|")[2]) == issubclass(design, Budgeted), row


def test_two_entries_of_one_name_are_refused(plan: Plan) -> None:
    with pytest.raises(InputError, match="'x' appears twice"):
        plan({"name": "x"}, {"name": "x"})


def test_granularity_keeps_sizes_and_pays_for_the_router(plan: Plan) -> None:
    runs = plan(
        {"name": "g", "design": "granularity", "granularity": [1, 2, 4, 8], "expansion": 8, "flops": 4e11},
    )
    dense, *moes = runs
    assert dense.model.moe is None
    widths = [(m.model.moe.n_experts, m.model.moe.top_k, m.model.moe.d_expert) for m in moes if m.model.moe]
    assert widths == [(8, 1, 96), (16, 2, 48), (32, 4, 24), (64, 8, 12)]
    assert [run_columns(m)["granularity"] for m in moes] == [1, 2, 4, 8]
    assert len({count_parameters(m.model).experts for m in moes}) == 1
    assert len({count_parameters(m.model).active_experts for m in moes}) == 1
    tokens = [m.train.tokens for m in moes]
    assert tokens == sorted(tokens, reverse=True)
    assert all(match.within for match in match_runs(runs))


def test_expansion_multiplies_the_experts(plan: Plan) -> None:
    sizes = [{}, {"d_model": 48, "n_heads": 6, "d_ff": 144}]
    runs = plan({"name": "x", "design": "expansion", "expansion": [4, 16], "sizes": sizes, "tokens": 1_000_000})
    assert [run_columns(run)["expansion"] for run in runs] == [1, 4, 16, 1, 4, 16]
    assert {run.train.tokens for run in runs} == {1_000_448}


EQUAL: dict[str, Any] = {
    "name": "equal",
    "design": "equal_resources",
    "params_total": 150_000,
    "flops": 6e11,
    "activation_rates": [0.25, 0.4],
    "reuse": ["fresh", "strict", "loose"],
}


def test_equal_resources_are_equal_and_reuse_is_exact(plan: Plan, base: dict[str, Any]) -> None:
    base = {**base, "model": {**base["model"], "n_layers": 3}}
    runs = plan(EQUAL, base=base)
    dense = [run for run in runs if run.labels["role"] == "dense"]
    assert [run.labels["times"] for run in dense] == ["1", "2"]
    assert dense[1].train.tokens == pytest.approx(2 * dense[0].train.tokens, rel=0.01)
    for match in match_runs(runs):
        bound = {"train_flops": 0.01, "params_total": 0.02, "activation_rate": 0.07}[match.column]
        assert abs(match.miss) <= bound, match
    for rate in (0.25, 0.4):
        fresh, strict, loose = (
            next(r for r in runs if r.labels.get("reuse") == reuse and float(r.labels["aim_activation_rate"]) == rate)
            for reuse in ("fresh", "strict", "loose")
        )
        assert fresh.model == strict.model == loose.model
        assert fresh.train.tokens == strict.train.tokens == loose.train.tokens > dense[0].train.tokens
        assert fresh.data.unique_tokens is None
        assert strict.data.unique_tokens == dense[0].train.tokens
        assert loose.data.unique_tokens == loose.train.tokens // 2
        assert run_columns(loose)["epochs"] == pytest.approx(2, rel=0.001)
        assert fresh.model.moe is not None
        assert fresh.model.moe.d_shared == fresh.model.moe.top_k * fresh.model.moe.d_expert
        assert fresh.model.n_dense_layers == 1


def test_equal_resources_take_an_earlier_winner_as_it_is(plan: Plan, base: dict[str, Any]) -> None:
    moe = {"n_experts": 16, "top_k": 2, "d_expert": 24}
    base = {**base, "model": {**base["model"], "moe": moe}}
    runs = plan({"name": "equal", "design": "equal_resources", "flops": 6e11, "reuse": ["strict"]}, base=base)
    assert [run.model.moe is None for run in runs] == [True, True, False]
    assert runs[2].model.moe is not None
    assert runs[2].model.moe.n_experts == 16


def test_overtraining_has_the_same_backbones_for_all_experts(plan: Plan) -> None:
    entry = {
        "name": "o",
        "design": "overtraining",
        "flops": 3e11,
        "params_dense": [15_000, 30_000, 60_000],
        "n_experts": [1, 4],
        "shapes": {"n_layers": [2, 4]},
    }
    runs = plan(entry)
    assert [run.labels["size"] for run in runs[:3]] == [run.labels["size"] for run in runs[3:]]
    assert [(run.model.moe_every, run.model.moe and run.model.moe.top_k) for run in runs[3:]] == [(2, 2)] * 3
    tokens = [run.train.tokens for run in runs[:3]]
    assert tokens == sorted(tokens)
    assert all(match.within for match in match_runs(runs))


def test_overtraining_reports_how_far_its_sizes_are_off(plan: Plan) -> None:
    entry = {"name": "o", "design": "overtraining", "flops": 3e11, "params_dense": [20_000], "n_experts": [1, 4]}
    runs = plan(entry)
    (found,) = [match for match in match_runs(runs) if match.column == "params_dense"]
    dense = count_parameters(runs[0].model).params_non_embedding
    assert (found.n_runs, found.aim, found.low, found.high) == (2, 20_000, dense, dense)
    assert found.miss == pytest.approx(dense / 20_000 - 1)


def test_isoflop_reports_how_far_its_ratios_and_sizes_are_off(plan: Plan) -> None:
    iso = {"name": "iso", "design": "isoflop", "flops": 3e11}
    (run,) = plan({**iso, "tokens_per_param": 20})
    (found,) = [match for match in match_runs([run]) if match.column == "tokens_per_param"]
    columns = run_columns(run)
    assert found.miss == pytest.approx(columns["tokens"] / columns["params_active"] / 20 - 1)
    same = plan({**iso, "params_total": [43_000, 43_200, 40_000]})
    assert [run.labels["aim_params_total"] for run in same] == ["40000"], "one shape, with the size it misses most"


def test_equal_resources_refuse_a_base_that_is_not_as_large(plan: Plan, base: dict[str, Any]) -> None:
    base = {**base, "model": {**base["model"], "moe": {"n_experts": 16, "top_k": 2, "d_expert": 24}}}
    entry = {"name": "equal", "design": "equal_resources", "flops": 6e11}
    with pytest.raises(InputError, match=r"params_total: the base's MoE has 99,520 parameters, -33.7% off 150,000"):
        plan({**entry, "params_total": 150_000}, base=base)
    assert len(plan({**entry, "params_total": 100_000}, base=base)) == 3


def test_overtraining_runs_a_shape_once(plan: Plan) -> None:
    entry = {"name": "o", "design": "overtraining", "flops": [3e9], "n_experts": [1, 4], "min_steps": 1}
    near = plan({**entry, "params_dense": [4000, 4001]})
    assert len(near) == len(plan({**entry, "params_dense": [4000]})) == 2


def test_a_stage_carries_only_fields_that_runs_have(plan: Plan) -> None:
    run = plan({"name": "grid", "set": {"train.tokens": 6400}})[0]
    runs = [{"name": "g", "set": {"train.seed": 0}}]
    assert carried(Stage(name="s", runs=runs, carry=["train.seed"]), run) == {"train.seed": run.train.seed}
    with pytest.raises(InputError, match=r"stages.carry: a run has no field 'model.d_modle'"):
        carried(Stage(name="s", runs=runs, carry=["model.d_modle"]), run)


def test_mixture_of_tokens_has_its_baselines_and_its_transition(plan: Plan) -> None:
    runs = plan(
        {
            "name": "m",
            "design": "mixture_of_tokens",
            "group_size": 8,
            "mixtures": [2],
            "transition": 0.9,
            "tokens": 10**6,
        }
    )
    assert [run.labels["role"] for run in runs] == ["dense", "token choice", "mixture", "transition"]
    dense, choice, mixture, turned = runs
    assert mixture.model.moe is not None
    assert choice.model.moe is not None
    assert (mixture.model.moe.n_experts, mixture.model.moe.top_k, mixture.model.moe.d_expert) == (16, 2, 48)
    assert choice.model.moe.n_experts == 16
    assert turned.train.transition is not None
    assert turned.train.transition.at == 0.9
    flops = [count_flops(run.model, 128) for run in (dense, mixture)]
    assert flops[0].dense_ffn == flops[1].experts


def test_runs_of_a_study_are_read_as_written(base: dict[str, Any]) -> None:
    value = {"name": "s", "title": "t", "data": {"sources": ["texts"]}, "base": base, "runs": [EQUAL, {"name": "g"}]}
    study = StudyConfig.parse(value)
    assert StudyConfig.parse(study.to_dict()) == study


@pytest.mark.parametrize(
    "entry",
    [
        {
            "design": "isoflop",
            "flops": 6e11,
            "params_total": [120_000],
            "sparsity": [0.75],
            "shapes": {"n_layers": [4]},
        },
        {"design": "granularity", "flops": 6e11, "granularity": [1, 2], "expansion": 4},
        {"design": "expansion", "flops": 6e11, "expansion": [2, 4]},
        {"design": "overtraining", "flops": 6e11, "params_dense": [30_000], "shapes": {"n_layers": [4]}},
        {"design": "mixture_of_tokens", "flops": 6e11, "group_size": 4},
    ],
    ids=lambda entry: entry["design"],
)
def test_experts_are_in_the_base_s_layers(plan: Plan, base: dict[str, Any], entry: dict[str, Any]) -> None:
    base = {**base, "model": {**base["model"], "n_layers": 4, "n_dense_layers": 1, "moe_every": 3}}
    models = [run.model for run in plan({"name": "layers", **entry}, base=base) if run.model.moe is not None]
    assert models
    assert {(model.n_dense_layers, model.moe_every) for model in models} == {(1, 3)}
