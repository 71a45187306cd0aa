"""Configs are strict, frozen, and complain in one line that names the field."""

from collections.abc import Callable
from pathlib import Path

import pytest

from moelab.architecture import ModelConfig, MoEConfig
from moelab.config import override
from moelab.errors import InputError
from moelab.planning import Budget, Space
from moelab.runs import RunConfig
from moelab.serving import Traffic

SMALL = {"vocab_size": 512, "d_model": 32, "n_layers": 2, "n_heads": 2, "d_ff": 64}
TRAIN = {"tokens": 100_000, "seq_len": 128, "batch_tokens": 1024}
MOE = {"n_experts": 4, "top_k": 2, "d_expert": 32}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"d_modle": 3}, "unknown key; did you mean 'd_model'"),
        ({"moe": {**MOE, "n_expert": 4}}, "did you mean 'n_experts'"),
        ({"foo": 1}, "foo: unknown key$"),
        ({"n_layers": 10**400}, "n_layers: expected a finite number .*got one of 401 digits"),
        ({"n_layers": "1" * 5000}, r"n_layers: expected a finite number .*, got '1{56}\.\.\.$"),
        ({"n_layers": "four"}, "n_layers: expected a number"),
        ({"n_layers": 1.5}, "n_layers: expected a whole number"),
        ({"n_layers": True}, "n_layers: expected a number"),
        ({"n_layers": -2}, "n_layers: input should be greater than 0, got -2"),
        ({"n_heads": 3}, r"d_model: must be a multiple of n_heads \(3\)"),
        ({"moe": {**MOE, "top_k": 8}}, r"top_k: must be at most n_experts \(4\), got 8"),
        ({"moe": {**MOE, "top_k": 1, "normalize_gates": True}}, "normalize_gates: must be false when top_k is 1"),
        ({"moe": {**MOE, "n_shared_experts": 1}}, "d_shared"),
        ({"moe": {**MOE, "d_shared": 8}}, "n_shared_experts"),
        ({"moe": MOE, "n_dense_layers": 2}, "n_dense_layers: leaves none"),
        ({"n_kv_heads": 4}, "n_kv_heads: must divide n_heads"),
        ({"d_ff": 0}, "d_ff: is required"),
        (
            {"activation": "swish"},
            "activation: input should be 'swiglu', 'geglu', 'clamped_swiglu', 'relu' or 'gelu', got 'swish'",
        ),
    ],
)
def test_bad_fields(change: dict, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        ModelConfig.parse({**SMALL, **change}, "a.yaml")
    assert "\n" not in str(caught.value)


def test_a_key_like_none_in_a_short_config_lists_them() -> None:
    with pytest.raises(InputError, match=r"data\.foo: unknown key; allowed: path, manifest_hash, unique_tokens"):
        RunConfig.parse({"model": SMALL, "data": {"path": "x", "foo": 1}, "train": TRAIN})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tokens": 1e300}, r"train.tokens: must be above 0 and at most 1e18, got 1e300$"),
        ({"batch_tokens": 1e300}, r"train.batch_tokens: must be above 0 and at most 1e18, got 1e300$"),
        ({"seq_len": 1e300}, r"train.seq_len: must be above 0 and at most 1B, got 1e300$"),
        ({"eval_tokens": 1e300}, r"train.eval_tokens: must be above 0 and at most 1e18, got 1e300$"),
        ({"weight_decay": 1e300}, r"train.weight_decay: input should be less than or equal to 1000, got 1e\+300$"),
        ({"logit_z_loss": 1e300}, r"train.logit_z_loss: input should be less than or equal to 1000"),
        ({"epsilon": 1e300}, r"train.epsilon: input should be less than or equal to 1, got 1e\+300$"),
        ({"evaluations": "1e300"}, r"train.evaluations: input should be less than or equal to 1000000"),
        ({"warmup_steps": "1e300"}, r"train.warmup_steps: input should be less than or equal to 10{18}"),
        ({"keep_steps": [1e300]}, r"train.keep_steps.0: must be above 0 and at most 1e18"),
        ({"foo": 1}, "train.foo: unknown key$"),
    ],
)
def test_training_out_of_range_is_refused(change: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        RunConfig.parse({"model": SMALL, "data": {"path": "x"}, "train": {**TRAIN, **change}})


def test_limits_rename_no_run() -> None:
    resolved = {"device": "cpu", "precision": "fp32", "threads": 1, "dispatch": "none", "warmup_steps": 2}
    data = {"path": "x", "manifest_hash": "abc"}
    config = RunConfig.parse({"model": SMALL, "data": data, "train": {**TRAIN, **resolved, "weight_decay": 0.2}})
    assert config.run_id == "f32244854ce4f3a8"


def test_missing_field() -> None:
    with pytest.raises(InputError, match=r"a\.yaml: d_model: is required"):
        ModelConfig.parse({k: v for k, v in SMALL.items() if k != "d_model"}, "a.yaml")


def test_every_wrong_field_is_named() -> None:
    few = {**SMALL, "n_layers": -2, "d_modle": 3, "activation": "swish"}
    with pytest.raises(InputError) as caught:
        ModelConfig.parse(few, "a.yaml")
    complaints = str(caught.value).removeprefix("a.yaml: ").split("; ")
    assert complaints[:2] == ["d_modle: unknown key", "did you mean 'd_model'?"]  # a misspelt key may explain the rest
    assert [line.split(":")[0] for line in complaints[2:]] == ["n_layers", "activation"]
    many = dict.fromkeys(("vocab_size", "d_model", "n_layers", "n_heads", "d_ff", "rope_theta"), -1)
    with pytest.raises(InputError, match=r"n_layers: .*; also wrong: .*rope_theta"):
        ModelConfig.parse(many)
    with pytest.raises(InputError, match=r"^MoEConfig: n_experts, top_k, d_expert: are required$"):
        MoEConfig.parse({}, "MoEConfig")


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Budget(flop=1e21), "Budget: flop: unknown key; did you mean 'flops'?"),
        (lambda: Budget(flops=-1), "Budget: flops: input should be greater than 0, got -1"),
        (lambda: Space(n_expert=[4]), "Space: n_expert: unknown key; did you mean 'n_experts'?"),
        (lambda: Traffic(promt=3), "Traffic: promt: unknown key; did you mean 'prompt'?"),
        (lambda: MoEConfig(**MOE, topk=1), "MoEConfig: topk: unknown key; did you mean 'top_k'?"),
        (lambda: ModelConfig(**SMALL, moe={**MOE, "n_expert": 4}), "ModelConfig: moe.n_expert: unknown key; did you"),
        (lambda: RunConfig(model=1), "RunConfig: model: "),
    ],
)
def test_keywords_are_checked_as_files_are(build: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError) as caught:
        build()
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_quantities_are_read() -> None:
    assert ModelConfig.parse({**SMALL, "vocab_size": "32K"}).vocab_size == 32_000


def test_yaml_round_trip(tmp_path: Path) -> None:
    config = ModelConfig.parse({**SMALL, "moe": MOE, "n_dense_layers": 1})
    config.to_yaml(tmp_path / "model.yaml")
    assert ModelConfig.from_yaml(tmp_path / "model.yaml") == config


@pytest.mark.parametrize("text", ["[1, 2", "- a\n- b", "a: b: c", "", "a: 2020-13-45", "a: " + "1" * 5000, "[" * 5000])
def test_bad_yaml_names_the_file(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=r"x\.yaml"):
        ModelConfig.from_yaml(path)


def test_a_key_that_stands_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("vocab_size: 512\nd_model: 32\nvocab_size: 1024\n")
    with pytest.raises(InputError, match=r"x\.yaml is not valid YAML \(line 3: the key 'vocab_size' stands twice"):
        ModelConfig.from_yaml(path)


def test_missing_file() -> None:
    with pytest.raises(InputError, match="no such file"):
        RunConfig.from_yaml("nowhere.yaml")


def test_configs_are_frozen() -> None:
    config = ModelConfig.parse(SMALL)
    with pytest.raises(ValueError, match="frozen"):
        config.d_model = 64


def test_override() -> None:
    before = {"train": {"seed": 0}, "x": 1}
    after = override(before, ["train.seed=3", "model.moe.top_k=2", "x=1e-3"])
    assert after == {"train": {"seed": 3}, "x": "1e-3", "model": {"moe": {"top_k": 2}}}
    assert before["train"]["seed"] == 0
    with pytest.raises(InputError, match="KEY=VALUE"):
        override({}, ["seed"])


def test_normalised_gates_default_follows_top_k() -> None:
    assert ModelConfig.parse({**SMALL, "moe": MOE}).moe.normalize_gates
    assert not ModelConfig.parse({**SMALL, "moe": {**MOE, "top_k": 1}}).moe.normalize_gates
