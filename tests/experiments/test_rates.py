"""Learning rates and batches by rule or sweep, ladders with their trunks, and repeats with other seeds."""

from collections.abc import Callable
from typing import Any

import pytest

from moelab.architecture import count_parameters
from moelab.errors import InputError
from moelab.experiments import match_runs
from moelab.runs import RunConfig, run_columns

Plan = Callable[..., list[RunConfig]]


def test_a_ladder_branches_off_one_trunk(plan: Plan) -> None:
    trunk, *branches = plan({"name": "l", "design": "ladder", "tokens": [400_000, 800_000, 1_600_000]})
    assert trunk.train.schedule == "constant"
    assert [b.train.schedule for b in branches] == ["wsd"] * 3
    starts = [b.train.steps - b.train.decay for b in branches]
    assert list(trunk.train.keep_steps) == starts
    assert trunk.train.steps == starts[-1]
    assert [int(b.labels["branch_step"]) for b in branches] == starts
    assert {b.train.warmup for b in branches} == {trunk.train.warmup}


def test_a_ladder_keeps_the_bases_warmup_and_decay(plan: Plan, base: dict[str, Any]) -> None:
    base = {**base, "train": {**base["train"], "warmup_steps": 17, "decay_fraction": 0.3}}
    ladder = {"name": "l", "design": "ladder", "tokens": [400_000, 800_000]}
    runs = plan(ladder, base=base)
    assert {run.train.warmup for run in runs} == {17}
    assert [run.train.decay / run.train.steps for run in runs[1:]] == pytest.approx([0.3, 0.3], abs=0.003)
    assert plan({**ladder, "decay_fraction": 0.5}, base=base)[1].train.decay == 196


def test_branches_have_their_trunks_learning_rate(plan: Plan) -> None:
    changes = {"learning_rate": {"rule": "deepseek2024"}}
    runs = plan({"name": "l", "design": "ladder", "tokens": [400_000, 1_600_000]}, **changes)
    assert len({run.train.learning_rate for run in runs}) == 1


@pytest.mark.parametrize(
    "entry",
    [
        {"design": "ladder", "tokens": [400_000, 800_000]},
        {"design": "mixture_of_tokens", "group_size": 8, "tokens": 10**6},
    ],
)
def test_a_batch_that_would_break_the_design_is_refused(plan: Plan, entry: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"learning_rate.batch: x is .*, planned for one batch"):
        plan({"name": "x", **entry}, learning_rate={"rule": "deepseek2024", "batch": True})


def test_a_rules_batch_leaves_whole_steps_nearest_to_the_tokens(plan: Plan) -> None:
    changes = {"learning_rate": {"rule": "deepseek2024", "batch": True}}
    ladder = {"name": "l", "design": "ladder", "tokens": [400_000, 1_600_000], "branch": False}
    for run, asked in zip(plan(ladder, **changes), plan(ladder), strict=True):
        batch = run.train.batch_tokens
        assert batch != asked.train.batch_tokens
        assert run.train.tokens % batch == 0
        assert abs(run.train.tokens - asked.train.tokens) <= batch / 2


def test_a_rules_batch_keeps_the_flops_and_reports_by_how_much_it_misses_them(plan: Plan) -> None:
    changes = {"learning_rate": {"rule": "deepseek2024", "batch": True}}
    iso = {"name": "iso", "design": "isoflop", "flops": 1e11, "params_total": 60_000, "min_steps": 20}
    (run,) = plan(iso, **changes)
    columns = run_columns(run)
    half = columns["flops_per_token"] * run.train.batch_tokens / 2
    assert abs(columns["train_flops"] - 1e11) <= half
    (found,) = [match for match in match_runs([run]) if match.column == "train_flops"]
    assert found.miss == pytest.approx(columns["train_flops"] / 1e11 - 1)
    steps = run.train.steps
    with pytest.raises(InputError, match=rf"runs iso: learning_rate.batch: .* {steps} steps; at least {steps + 1}"):
        plan({**iso, "min_steps": steps + 1}, **changes)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"rule": "bogus"}, "learning_rate.rule: input should be 'sweep', 'steplaw2025', .* got 'bogus'"),
        ({"rule": "sweep", "batch": True}, "batch: needs a rule that gives a batch"),
        ({"rule": "steplaw2025", "carry": "constant"}, "carry: only the rule sweep carries"),
    ],
)
def test_rules_that_would_be_ignored_are_refused(plan: Plan, rule: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        plan({"name": "g"}, learning_rate=rule)
    assert "\n" not in str(error.value)


def test_a_factor_holds_for_a_constant_rate_too(plan: Plan) -> None:
    sweep = {"values": [0.02], "runs": [{"name": "sweep"}]}
    (run,) = plan({"name": "g"}, sweep=sweep, learning_rate={"carry": "constant", "factor": 0.5})
    assert run.train.learning_rate == pytest.approx(0.01)


@pytest.mark.parametrize("factor", [1e300, 1e9, 1e-323])
@pytest.mark.parametrize("rule", [{"rule": "steplaw2025"}, {"rule": "sweep"}, {"rule": "sweep", "carry": "constant"}])
def test_rates_out_of_range_are_refused(plan: Plan, rule: dict[str, Any], factor: float) -> None:
    sweep = {"values": [0.01], "runs": [{"name": "sweep"}]}
    with pytest.raises(InputError, match=r"learning_rate.factor: .* must be above 0 and at most 10$") as error:
        plan({"name": "g"}, sweep=sweep, learning_rate={**rule, "factor": factor})
    assert "\n" not in str(error.value)


def test_learning_rates_cross_with_batches_and_keep_their_own(plan: Plan) -> None:
    entry = {
        "name": "r",
        "design": "learning_rate",
        "tokens": 400_000,
        "learning_rate": [0.01, 0.02],
        "batch_tokens": [512, 1024],
    }
    runs = plan(entry, learning_rate={"rule": "steplaw2025"})
    found = [(run.train.batch_tokens, run.train.learning_rate) for run in runs]
    assert found == [(512, 0.01), (512, 0.02), (1024, 0.01), (1024, 0.02)]
    # 400,000 tokens in whole steps of each batch.
    assert [run.train.steps * run.train.batch_tokens for run in runs] == [399_872, 399_872, 400_384, 400_384]


def test_repeats_copy_runs_with_other_seeds(plan: Plan) -> None:
    grid = {"name": "g", "set": {"train.tokens": [200_000, 400_000, 800_000]}}
    runs = plan(grid, {"name": "again", "design": "repeats", "of": ["g"], "seeds": 2})
    assert [(run.train.tokens, run.train.seed) for run in runs[3:]] == [(400_000, 1), (400_000, 2)]
    assert {run.labels["group"] for run in runs} == {"g"}


@pytest.mark.parametrize("which", ["first", "last", "all"])
def test_repeats_of_a_branched_ladder_bring_their_own_trunks(plan: Plan, which: str) -> None:
    ladder = {"name": "l", "design": "ladder", "tokens": [400_000, 1_600_000]}
    again = {"name": "again", "design": "repeats", "of": ["l"], "which": which}
    runs = plan(ladder, again, learning_rate={"rule": "deepseek2024"})
    trunks = {run.labels["trunk"]: run for run in runs if "trunk" in run.labels}
    assert len(trunks) == sum("trunk" in run.labels for run in runs) == 3
    branches = [run for run in runs if "branch_of" in run.labels]
    assert len(branches) == 2 + (4 if which == "all" else 2)
    for branch in branches:
        trunk = trunks[branch.labels["branch_of"]]
        assert trunk.train.seed == branch.train.seed
        assert trunk.train.learning_rate == branch.train.learning_rate
        assert int(branch.labels["branch_step"]) in trunk.train.keep_steps
    tokens = [branch.train.tokens for branch in branches]
    assert {"first": tokens[0], "last": tokens[1]}.get(which, tokens[-1]) == tokens[-1]


def test_repeats_go_on_after_the_seeds_there_are(plan: Plan, base: dict[str, Any]) -> None:
    base = {**base, "train": {**base["train"], "seed": 7}}
    again = {"name": "again", "design": "repeats", "of": ["g"], "seeds": 2}
    runs = plan({"name": "g", "replicates": 3}, again, base=base)
    assert [run.train.seed for run in runs] == [7, 8, 9, 10, 11]
    runs = plan({"name": "g", "set": {"train": {"seed": 4}}}, again, base=base)
    assert [run.train.seed for run in runs] == [4, 5, 6]


def test_each_size_of_a_ladder_has_its_own_trunk(plan: Plan) -> None:
    runs = plan({"name": "l", "design": "ladder", "tokens": [400_000], "sizes": [{"d_ff": 48}, {"d_ff": 96}]})
    trunks = {run.labels["trunk"]: run.model.d_ff for run in runs if "trunk" in run.labels}
    assert list(trunks.values()) == [48, 96]
    assert [trunks[run.labels["branch_of"]] for run in runs if "branch_of" in run.labels] == [48, 96]


@pytest.mark.parametrize("fields", [{"train.learning_rate": [0.01, 0.02]}, {"train": [{"learning_rate": 0.01}]}])
def test_a_grid_keeps_the_learning_rates_it_sets(plan: Plan, fields: dict[str, Any]) -> None:
    runs = plan({"name": "g", "set": fields}, learning_rate={"rule": "steplaw2025"})
    assert [run.train.learning_rate for run in runs] == [0.01, 0.02][: len(runs)]


def test_rules_set_the_learning_rate_and_the_batch(plan: Plan) -> None:
    entry = {"name": "g", "set": {"train.tokens": 1_600_000}}
    (run,) = plan(entry, learning_rate={"rule": "steplaw2025", "factor": 0.25, "batch": True})
    n = count_parameters(run.model).params_non_embedding
    assert run.train.learning_rate == pytest.approx(
        0.25 * 1.79 * n**-0.713 * run_columns(run)["tokens"] ** 0.307, rel=0.01
    )
    assert run.train.batch_tokens == pytest.approx(0.58 * 1_600_000**0.571, abs=64)


def test_a_swept_rate_is_carried_by_a_rule(plan: Plan) -> None:
    sweep = {"values": [0.01, 0.02], "runs": [{"name": "sweep", "set": {"train.tokens": 400_000}}]}
    grid = {"name": "g", "set": {"train.tokens": [400_000, 1_600_000]}}
    runs = plan(grid, sweep=sweep, learning_rate={"rule": "sweep"})
    assert runs[0].train.learning_rate == pytest.approx(0.02)
    assert runs[1].train.learning_rate == pytest.approx(0.02 * 4**-0.125, rel=1e-3)
    kept = plan(grid, sweep=sweep, learning_rate={"rule": "sweep", "carry": "constant"})
    assert {run.train.learning_rate for run in kept} == {0.02}
    with pytest.raises(InputError, match=r"learning_rate.rule|sweep needs a `sweep`"):
        plan(grid, learning_rate={"rule": "sweep"})


def test_small_models_are_warned_off_step_law(plan: Plan) -> None:
    from moelab.experiments.learning_rate import LearningRateRule

    warnings = LearningRateRule(rule="steplaw2025").warnings(plan({"name": "g"}))
    assert any("four times too high" in text for text in warnings)
    assert LearningRateRule().warnings(plan({"name": "g"})) == []
