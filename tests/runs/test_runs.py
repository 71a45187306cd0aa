"""A run is named by what decides its outcome; its folder never changes unnoticed; its record is a flat row."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moelab.architecture import count_flops, count_parameters
from moelab.config import dump_yaml, load_yaml
from moelab.errors import InputError
from moelab.files import write_text
from moelab.runs import RunConfig, RunFolder, RunRecord, TrainConfig, find_runs, run_columns

RUN = {
    "model": {"vocab_size": 512, "d_model": 32, "n_layers": 2, "n_heads": 2, "d_ff": 64},
    "data": {"path": "somewhere", "manifest_hash": "abc"},
    "train": {
        "tokens": 100_000,
        "seq_len": 128,
        "batch_tokens": 1024,
        "device": "cpu",
        "precision": "fp32",
        "threads": 1,
        "dispatch": "none",
    },
}
MOE = {"n_experts": 4, "top_k": 2, "d_expert": 32}


def run(**changes: object) -> RunConfig:
    return RunConfig.parse({**RUN, **changes})


def record_of(config: RunConfig, **changes: object) -> RunRecord:
    measured = {
        "run_id": config.run_id,
        "status": "finished",
        "loss": 3.5,
        "bits_per_byte": 2.0,
        "device": "cpu",
        "precision": "fp32",
        "threads": 1,
        "dispatch": "none",
        "seconds": 1.0,
        "tokens_per_second": 1e4,
        "peak_memory_bytes": 10**8,
        "data_hash": "abc",
    }
    return RunRecord.parse({**run_columns(config), **measured, **changes})


def test_the_id_ignores_paths_names_and_labels() -> None:
    other = run(data={"path": "elsewhere", "manifest_hash": "abc"}, name="x", labels={"group": "y"})
    assert run().run_id == other.run_id


@pytest.mark.parametrize(
    "change",
    [
        {"model": {**RUN["model"], "d_ff": 65}},
        {"data": {"path": "somewhere", "manifest_hash": "abd"}},
        {"data": {**RUN["data"], "unique_tokens": 1000}},
        {"train": {**RUN["train"], "seed": 1}},
        {"train": {**RUN["train"], "threads": 2}},
    ],
)
def test_the_id_changes_with_the_content(change: dict) -> None:
    assert run().run_id != run(**change).run_id


def test_writing_a_default_out_does_not_change_the_id() -> None:
    spelled = {**RUN["train"], "weight_decay": 0.1, "optimizer": "adamw"}
    assert run().run_id == run(train=spelled).run_id


@pytest.mark.parametrize(
    "change",
    [
        {"kernels": "native"},
        {"muon_split": False},
        {"weight_decay_on": "matrices"},
        {"optimizer": "muon", "muon_split": False},
        {"precision": "bf16", "kernels": "torch"},
    ],
)
def test_fields_that_change_nothing_0_1_did_rename_no_run(change: dict) -> None:
    old = {name: value for name, value in change.items() if name in ("optimizer", "precision")}
    assert run(train={**RUN["train"], **change}).run_id == run(train={**RUN["train"], **old}).run_id


@pytest.mark.parametrize(
    "change", [{"kernels": "torch"}, {"weight_decay_on": "all"}, {"optimizer": "muon", "muon_split": True}]
)
def test_fields_that_change_numbers_rename_the_run(change: dict) -> None:
    old = {name: value for name, value in change.items() if name == "optimizer"}
    assert run(train={**RUN["train"], **change}).run_id != run(train={**RUN["train"], **old}).run_id


def test_runs_keep_the_names_that_0_1_gave_them() -> None:
    muon = {**RUN["train"], "optimizer": "muon", "precision": "bf16"}
    assert (run().run_id, run(train=muon).run_id) == ("0d5e6a6d10432800", "2d71558951da6543")
    assert run(model={**RUN["model"], "moe": MOE}).run_id == "8a7c6f39670740f4"


def test_an_unresolved_run_has_no_id() -> None:
    with pytest.raises(InputError, match="resolved first"):
        _ = run(train={**RUN["train"], "threads": 0}).run_id


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_tokens": 1000}, r"batch_tokens: must be a multiple of seq_len \(128\), got 1000"),
        ({"tokens": 100}, "tokens: must hold at least one batch"),
        ({"micro_batch": 3}, "micro_batch: must divide the 8 sequences"),
        ({"learning_rate": -1}, "learning_rate: input should be greater than 0"),
        ({"beta1": 1}, "beta1: input should be less than 1, got 1"),
        ({"muon_momentum": 1}, "muon_momentum: input should be less than 1"),
        ({"threads": 100_000}, "threads: input should be less than or equal to 1024"),
        ({"schedule": "linear"}, "schedule: input should be 'cosine', 'wsd' or 'constant'"),
        ({"schedule": "wsd", "warmup_fraction": 0.9}, "must be at most 1"),
    ],
)
def test_bad_training_fields(change: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        TrainConfig.parse({**RUN["train"], **change})


@given(st.integers(1, 50), st.integers(1, 20), st.integers(0, 10**6))
def test_tokens_round_down_to_whole_steps(batch: int, seq: int, extra: int) -> None:
    tokens = batch * seq + extra
    train = TrainConfig(tokens=tokens, seq_len=seq, batch_tokens=batch * seq)
    assert train.steps * train.batch_tokens <= tokens < (train.steps + 1) * train.batch_tokens


class TestFolder:
    def test_round_trip(self, tmp_path: Path) -> None:
        config = run()
        folder = RunFolder.create(tmp_path, config)
        assert not folder.finished
        folder.save_record(record_of(config))
        again = find_runs(tmp_path)[0]
        assert again.finished
        assert again.load_config() == config
        assert again.load_record().loss == 3.5

    def test_an_edited_config_is_refused(self, tmp_path: Path) -> None:
        folder = RunFolder.create(tmp_path, run())
        text = load_yaml(folder.path / "config.yaml")
        text["train"]["seed"] = 7
        write_text(folder.path / "config.yaml", dump_yaml(text))
        with pytest.raises(InputError, match="was edited"):
            folder.load_config()
        with pytest.raises(InputError, match="was edited"):
            RunFolder.create(tmp_path, run())

    def test_a_finished_run_with_an_edited_config_or_record_is_refused(self, tmp_path: Path) -> None:
        config = run()
        folder = RunFolder.create(tmp_path, config)
        folder.save_record(record_of(config, run_id="f" * 16))
        with pytest.raises(InputError, match="record of another run"):
            folder.load_record()
        folder.save_record(record_of(config))
        text = load_yaml(folder.path / "config.yaml")
        text["train"]["seed"] = 7
        write_text(folder.path / "config.yaml", dump_yaml(text))
        with pytest.raises(InputError, match="was edited"):
            folder.load_record()

    def test_a_folder_that_is_no_run(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="not a run folder"):
            RunFolder.open(tmp_path)

    def test_a_damaged_record_is_named(self, tmp_path: Path) -> None:
        folder = RunFolder.create(tmp_path, run())
        (folder.path / "record.json").write_text('{"run_id": ')
        with pytest.raises(InputError, match=r"record\.json is not valid JSON"):
            folder.load_record()


class TestColumns:
    def test_dense_is_one_expert(self) -> None:
        columns = run_columns(run())
        assert (columns["kind"], columns["n_experts"], columns["sparsity"], columns["granularity"]) == (
            "dense",
            1,
            0,
            1,
        )
        assert columns["activation_rate"] == 1.0

    def test_moe_columns_follow_the_counts(self) -> None:
        config = run(model={**RUN["model"], "moe": MOE})
        columns = run_columns(config)
        counts = count_parameters(config.model)
        assert columns["params_active"] == counts.params_active < columns["params_total"] == counts.params_total
        assert columns["sparsity"] == 0.5
        assert columns["tokens"] == 97 * 1024
        assert columns["train_flops"] == count_flops(config.model, 128).train * columns["tokens"]

    def test_epochs_count_repeated_data(self) -> None:
        columns = run_columns(run(data={**RUN["data"], "unique_tokens": 49_664}))
        assert columns["epochs"] == 2.0

    def test_a_row_is_flat(self) -> None:
        config = run(labels={"group": "g"})
        row = record_of(config, routing=[{"max_violation": 0.2, "dead_experts": 1}]).row()
        assert row["group"] == "g"
        assert row["routing_dead_experts"] == 1
        assert all(not isinstance(value, dict | list) for value in row.values())
