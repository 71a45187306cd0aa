"""Grids cross and zip, every run is a valid config, and a bad study is named."""

from typing import Any

import pytest

from moelab.errors import InputError
from moelab.experiments import RunGrid
from moelab.studies import StudyConfig, build_runs, load_study

BASE: dict[str, Any] = {
    "model": {"vocab_size": 300, "d_model": 16, "n_layers": 2, "n_heads": 2, "d_ff": 32},
    "train": {"tokens": 640, "seq_len": 16, "batch_tokens": 64, "learning_rate": 0.02, "threads": 1},
}
STUDY: dict[str, Any] = {
    "name": "tiny",
    "title": "A tiny study",
    "data": {"sources": ["texts"], "vocab_size": 300},
    "base": BASE,
    "runs": [],
    "fit": {"laws": ["hoffmann2022"]},
    "plan": {},
}


def study(*grids: dict[str, Any], **changes: Any) -> StudyConfig:
    return StudyConfig.parse({**STUDY, "runs": list(grids), **changes})


def test_lists_cross_and_zips_advance_together() -> None:
    grid = RunGrid.parse({"name": "g", "set": {"a": [1, 2], "b": 5}, "zip": {"c": [7, 8], "d": [70, 80]}})
    assert grid.assignments() == [
        {"c": 7, "d": 70, "a": 1, "b": 5},
        {"c": 7, "d": 70, "a": 2, "b": 5},
        {"c": 8, "d": 80, "a": 1, "b": 5},
        {"c": 8, "d": 80, "a": 2, "b": 5},
    ]


def test_unequal_zips_are_refused() -> None:
    with pytest.raises(InputError, match="equally long"):
        RunGrid.parse({"name": "g", "zip": {"a": [1], "b": [1, 2]}})


def test_runs_are_built_with_common_fields_and_seeds() -> None:
    tiny = study(
        {"name": "dense", "set": {"train.tokens": [640, 1280]}, "replicates": 2},
        {"name": "moe", "set": {"model.moe": {"n_experts": 4, "top_k": 2, "d_expert": 16}}},
    )
    runs = build_runs(tiny, tiny.runs, "data", {"train.learning_rate": 0.5})
    assert [(r.train.tokens, r.train.seed) for r in runs] == [(640, 0), (640, 1), (1280, 0), (1280, 1), (640, 0)]
    assert {r.train.learning_rate for r in runs} == {0.5}
    assert runs[-1].model.moe is not None
    assert runs[-1].labels == {"group": "moe"}
    assert len({r.name for r in runs}) == len(runs)


def test_a_run_that_cannot_be_is_named() -> None:
    tiny = study({"name": "odd", "set": {"model.n_heads": 3}})
    with pytest.raises(InputError, match=r"study tiny, runs odd: .*n_heads"):
        build_runs(tiny, tiny.runs, "data", {})


def test_unknown_keys_are_named() -> None:
    with pytest.raises(InputError, match=r"did you mean 'flops_times'"):
        study(plan={"flop_times": 3})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "runs: needs at least one entry"),
        ({"name": "a/b"}, "name: must name a folder, without slashes"),
        ({"sweep": {"values": [], "runs": [{"name": "s"}]}}, "sweep.values: .*at least 1 item"),
        ({"sweep": {"values": [0.1], "runs": []}}, "sweep.runs: .*at least 1 item"),
        ({"stages": [{"name": "first", "runs": []}]}, "stages.0.runs: .*at least 1 item"),
        ({"stages": [{"name": "first", "runs": [{"name": "a"}], "carry": []}]}, "stages.0.carry: .*at least 1 item"),
        ({"fit": {"laws": []}}, "fit.laws: .*at least 1 item"),
        ({"verify": {"seeds": []}}, "verify.seeds: .*at least 1 item"),
    ],
)
def test_empty_lists_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        study(**changes)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"base": {**BASE, "data": {"path": "elsewhere"}}}, "base: data.path: every run reads the study's own text"),
        (
            {"sweep": {"values": [0.1], "runs": [{"name": "s", "set": {"train.learning_rate": 1}}]}},
            "sweep: runs: s sets train.learning_rate itself",
        ),
        ({"plan": None, "verify": {"strict": True}}, "plan: is required by `verify`"),
        ({"name": ".."}, "name: must name a folder"),
        ({"stages": [{"name": " ", "runs": [{"name": "s"}]}]}, "stages.0.name: must not be empty"),
        ({"base": {**BASE, "parent": {"run": "0123456789abcdef", "step": 3}}}, "base: parent: a study's runs start"),
        ({"sweep": {"values": [0.1, 0.2, 0.1], "runs": [{"name": "s"}]}}, "sweep: values: 0.1 appears twice"),
        ({"verify": {"seeds": [0, 0]}}, "verify.seeds: 0 appears twice"),
        ({"fit": {"laws": ["hoffmann2022", "hoffmann2022"]}}, "fit.laws: hoffmann2022 appears twice"),
    ],
)
def test_what_would_be_ignored_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        study({"name": "g"}, **changes)


def test_a_run_with_a_text_of_its_own_is_refused() -> None:
    tiny = study({"name": "g", "set": {"data.path": "elsewhere"}})
    with pytest.raises(InputError, match=r"runs g: data.path: every run reads the study's own text"):
        build_runs(tiny, tiny.runs, "data", {})


def test_two_stages_of_one_name_are_refused() -> None:
    stages = [{"name": "first", "runs": [{"name": name}]} for name in "ab"]
    with pytest.raises(InputError, match="stages: the name 'first' appears twice"):
        study({"name": "g"}, stages=stages)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("train.seq_len", "abc", "train.seq_len: expected a number .* got 'abc'"),
        ("train.batch_tokens", 0, "train.batch_tokens: input should be greater than 0, got 0"),
        ("train.batch_tokens", "abc", "train.batch_tokens: expected a number .* got 'abc'"),
        ("train.seed", "x", "train.seed: expected a number .* got 'x'"),
        ("train.warmup_fraction", "x", "train.warmup_fraction: expected a number .* got 'x'"),
        ("train.schedule", "line", "train.schedule: input should be 'cosine', 'wsd' or 'constant', got 'line'"),
        ("train.shedule", "wsd", "train.shedule: unknown key; did you mean 'schedule'"),
        ("model", [1], r"model: expected keys and values, got \[1\]"),
        ("model.moe", {"n_expert": 4}, "model.moe.n_expert: unknown key; did you mean 'n_experts'"),
        ("train", 3, "train: expected keys and values, got 3"),
    ],
)
def test_wrong_values_in_the_base_or_a_grid_are_named(field: str, value: Any, message: str) -> None:
    head, _, rest = field.partition(".")
    base = {**BASE, head: {**BASE[head], rest: value} if rest else value}
    with pytest.raises(InputError, match=f"base: {message}") as error:
        study({"name": "g"}, base=base)
    assert "\n" not in str(error.value)
    tiny = study({"name": "g", "set": {field: [value]}})
    with pytest.raises(InputError, match=f"study tiny, runs g: {message}"):
        build_runs(tiny, tiny.runs, "data", {})


def test_what_a_sweep_or_stage_gives_the_base_is_checked() -> None:
    iso = {"name": "iso", "design": "isoflop", "flops": 1e9, "params_total": 5_000}
    tiny = study(iso)
    with pytest.raises(InputError, match=r"base with train.seq_len as chosen: train.seq_len: expected"):
        build_runs(tiny, tiny.runs, "data", {"train.seq_len": 0.5})


def test_the_ready_study_is_whole() -> None:
    quick = load_study("quickstart")
    runs = build_runs(quick, quick.runs, "data", {})
    assert 16 <= len(runs) <= 20
    assert {run.model.vocab_size for run in runs} == {quick.data.vocab_size}
    assert max(run.train.tokens for run in runs) < (quick.data.max_tokens or 0)


def test_an_unknown_study_is_named() -> None:
    with pytest.raises(InputError, match=r"ready studies?|ready: quickstart"):
        load_study("nothing")
