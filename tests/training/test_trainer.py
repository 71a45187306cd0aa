"""A run learns, is evaluated right, resumes to the same bits after a kill at any step, and is never done twice."""

import json
import math
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from moelab.architecture.memory import training_memory
from moelab.config import load_yaml
from moelab.data import Dataset, PrepareConfig, ValidationBatches
from moelab.data.prepare import prepare
from moelab.errors import InputError, MoelabError
from moelab.evaluation import evaluate
from moelab.model import build_model
from moelab.runs import RunConfig, RunFolder
from moelab.training import load_trained, resolve, resolve_run, train_run
from moelab.training.schedule import evaluation_steps
from moelab.training.tensor_files import save_weights

MOE = {"moe": {"n_experts": 4, "top_k": 2, "d_expert": 16}}


def without_digest(folder: Path) -> None:
    """Make a finished run's record one of 0.1."""
    record = json.loads((folder / "record.json").read_text())
    del record["weights_sha256"]
    (folder / "record.json").write_text(json.dumps(record))


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("model", [None, MOE], ids=["dense", "moe"])
def test_the_loss_falls(make_run: Any, dataset: Dataset, tmp_path: Path, model: Any, optimizer: str) -> None:
    record = train_run(make_run(model, optimizer=optimizer), tmp_path, dataset)
    assert record.status == "finished"
    assert record.loss is not None
    assert record.loss < math.log(300) - 1.0
    assert [row["step"] for row in record.loss_curve] == [20, 40]
    assert record.loss_curve[-1]["loss"] == record.loss
    assert record.tokens == 40 * 64
    assert len(record.routing) == len(record.expert_load) == (2 if model else 0)
    assert all(sum(load) == pytest.approx(1) for load in record.expert_load)


@pytest.mark.parametrize("model", [None, MOE], ids=["dense", "moe"])
@pytest.mark.parametrize(
    "kills",
    [
        [0],
        pytest.param([1], marks=pytest.mark.slow),
        pytest.param([6], marks=pytest.mark.slow),
        pytest.param([11], marks=pytest.mark.slow),
        [3, 3, 8],
    ],
)
def test_killed_and_resumed_equals_undisturbed(
    make_run: Any, undisturbed: Any, train_until: Any, dataset: Dataset, tmp_path: Path, model: Any, kills: list[int]
) -> None:
    config = make_run(model, optimizer="muon", schedule="wsd", tokens=12 * 64)
    whole = undisturbed(config)
    straight = RunFolder.open(whole).load_record()
    for step in kills:
        train_until(config, tmp_path, dataset, step)
    resumed = train_run(config, tmp_path, dataset)
    assert resumed.loss == straight.loss
    assert resumed.loss_curve == straight.loss_curve
    assert resumed.train_loss == straight.train_loss
    one, other = (load_file(folder / "model.safetensors") for folder in (whole, tmp_path / config.run_id))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_damaged_newest_checkpoint_changes_nothing(
    make_run: Any, train_until: Any, dataset: Dataset, tmp_path: Path
) -> None:
    config = make_run(MOE, tokens=10 * 64)
    straight = train_run(config, tmp_path / "a", dataset)
    train_until(config, tmp_path / "b", dataset, 7)
    newest = sorted((tmp_path / "b" / config.run_id / "checkpoints").iterdir())[-1] / "model.safetensors"
    newest.write_bytes(newest.read_bytes()[:-10])
    record = train_run(config, tmp_path / "b", dataset)
    assert record.loss == straight.loss
    assert "is damaged (model.safetensors does not match its checksum); using the one before it" in record.notes[0]


def test_where_no_checkpoint_is_whole_a_run_starts_again_with_a_note(
    make_run: Any, train_until: Any, dataset: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = make_run(MOE, tokens=10 * 64)
    straight = train_run(config, tmp_path / "a", dataset)
    train_until(config, tmp_path / "b", dataset, 7)
    for step in (tmp_path / "b" / config.run_id / "checkpoints").iterdir():
        (step / "model.safetensors").write_bytes(b"")
    capsys.readouterr()
    record = train_run(config, tmp_path / "b", dataset)
    assert (record.loss, record.resumed) == (straight.loss, 0)
    assert len(record.notes) == 2
    assert all(note.endswith("no other is left: starting again") for note in record.notes)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [f"warning: run {config.run_id}: {note}" for note in record.notes]


def test_more_evaluations_than_steps_are_one_each(make_run: Any, dataset: Dataset, tmp_path: Path) -> None:
    record = train_run(make_run(tokens=3 * 64, evaluations=8), tmp_path, dataset)
    assert [row["step"] for row in record.loss_curve] == [1, 2, 3]
    assert record.notes == ["train.evaluations: 8 were asked for, but a run of 3 steps has one per step"]


def test_a_finished_run_is_only_read(make_run: Any, dataset: Dataset, tmp_path: Path) -> None:
    config = make_run()
    first = train_run(config, tmp_path, dataset)
    weights = tmp_path / config.run_id / "model.safetensors"
    stamp = weights.stat().st_mtime_ns
    assert train_run(config, tmp_path, dataset) == first
    assert weights.stat().st_mtime_ns == stamp
    assert not (tmp_path / config.run_id / "checkpoints").exists()


@pytest.mark.parametrize("digest", [True, False], ids=["digest", "record of 0.1"])
@pytest.mark.parametrize(
    ("kept", "complaint"), [(0, "is damaged"), (100, "is damaged"), (None, "holds the weights of another model")]
)
def test_damaged_weights_are_named(
    make_run: Any, dataset: Dataset, tmp_path: Path, kept: int | None, complaint: str, digest: bool
) -> None:
    config = make_run(tokens=2 * 64)
    train_run(config, tmp_path, dataset)
    weights = tmp_path / config.run_id / "model.safetensors"
    if kept is None:
        save_weights(weights, {"w": torch.zeros(2)})
    else:
        weights.write_bytes(weights.read_bytes()[:kept])
    if digest:
        complaint = r"is damaged or was replaced: its SHA-256 is not that in record\.json"
    else:
        without_digest(weights.parent)
    with pytest.raises(InputError, match=complaint) as caught:
        load_trained(weights.parent)
    assert str(weights) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_two_flipped_bytes_of_the_weights_are_refused(
    make_run: Any, dataset: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = make_run(MOE, tokens=2 * 64)
    train_run(config, tmp_path, dataset)
    weights = tmp_path / config.run_id / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-5] ^= 0xFF
    content[-9] ^= 0xFF
    weights.write_bytes(content)
    load_file(weights)
    with pytest.raises(InputError, match=f"{weights} is damaged or was replaced"):
        load_trained(weights.parent)
    capsys.readouterr()
    without_digest(weights.parent)
    load_trained(weights.parent)
    note = f"note: {weights.parent / 'record.json'} holds no SHA-256 of the weights (moelab 0.1): they are not checked"
    assert capsys.readouterr().err.splitlines() == [note]


def test_two_processes_do_not_train_one_run(make_run: Any, dataset: Dataset, tmp_path: Path) -> None:
    config = make_run()
    with RunFolder.create(tmp_path, config).hold(), pytest.raises(MoelabError, match="another process is training"):
        train_run(config, tmp_path, dataset)
    assert train_run(config, tmp_path, dataset).status == "finished"


def test_divergence_is_recorded(make_run: Any, dataset: Dataset, tmp_path: Path) -> None:
    record = train_run(make_run(learning_rate=1e30, grad_clip=0, optimizer="adamw"), tmp_path, dataset)
    assert record.status == "diverged"
    assert record.loss is None
    assert RunFolder.open(tmp_path / record.run_id).load_record() == record


def test_accumulation_gives_the_gradients_of_the_whole_batch(make_run: Any, dataset: Dataset, tmp_path: Path) -> None:
    losses = {}
    for micro in (4, 2, 1):
        config = make_run(None, micro_batch=micro, tokens=10 * 64)
        losses[micro] = train_run(config, tmp_path, dataset).loss
    assert losses[2] == pytest.approx(losses[4], abs=1e-4)
    assert losses[1] == pytest.approx(losses[4], abs=1e-4)


def test_evaluation_equals_a_loop_over_the_windows(make_run: Any, dataset: Dataset) -> None:
    model = build_model(make_run(MOE).model, seed=3)
    batches = ValidationBatches(dataset, 16, 4, 320)
    found = evaluate(model, batches)
    nats, count, size = 0.0, 0, 0
    for batch in ValidationBatches(dataset, 16, 1, 320):
        logits = model(torch.from_numpy(batch.inputs))[0].detach().double()
        targets = torch.from_numpy(batch.targets)[0]
        nats -= float(logits.log_softmax(-1)[torch.arange(16), targets].sum())
        count, size = count + 16, size + int(batch.bytes.sum())
    assert found.tokens == count == 320
    assert found.loss == pytest.approx(nats / count, rel=1e-6)
    assert found.bits_per_byte == pytest.approx(nats / size / math.log(2), rel=1e-6)
    assert np.mean(list(found.loss_by_source.values())) == pytest.approx(found.loss)


def test_evaluation_leaves_the_model_in_training_mode(make_run: Any, dataset: Dataset) -> None:
    model = build_model(make_run().model, seed=0).train()
    evaluate(model, ValidationBatches(dataset, 16, 4, 64))
    assert model.training


def test_trained_weights_load_again(make_run: Any, dataset: Dataset, tmp_path: Path) -> None:
    config = make_run(MOE)
    record = train_run(config, tmp_path, dataset)
    again, model = load_trained(tmp_path / record.run_id)
    assert again == config
    batches = ValidationBatches(dataset, 16, 32, config.train.eval_tokens)
    assert evaluate(model, batches).loss == record.loss


class TestResolve:
    def test_everything_is_decided(self, make_run: Any) -> None:
        config = make_run(MOE, threads=0, precision="auto")
        assert config.resolved
        assert config.train.threads == 1
        assert config.train.precision == "fp32"
        assert config.train.dispatch != "auto"

    def test_resolving_twice_changes_nothing(self, make_run: Any, dataset: Dataset) -> None:
        config = make_run(MOE)
        assert resolve_run(config, dataset) == config

    def test_a_training_state_beyond_the_machines_memory_is_refused(
        self, make_run: Any, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        config = make_run(MOE)
        state = training_memory(config.model, "fp32", "adamw").total
        monkeypatch.setattr(resolve, "machine_memory", lambda: float(state))
        assert resolve_run(config, dataset) == config
        monkeypatch.setattr(resolve, "machine_memory", lambda: state / 1.01)
        with pytest.raises(InputError, match=r"^model: training its .* parameters takes .*; this machine has "):
            resolve_run(config, dataset)
        two = config.replace(train={**config.train.to_dict(), "processes": 2})
        monkeypatch.setattr(resolve, "machine_memory", lambda: 1.99 * state)
        with pytest.raises(InputError, match="optimiser state, 2 times"):
            resolve_run(two, dataset)

    def test_wide_runs_on_cuda_are_compiled(self, make_run: Any, dataset: Dataset) -> None:
        def compiles(model: dict[str, Any], **train: Any) -> str:
            small = make_run(model)
            config = RunConfig.parse(
                {
                    "model": small.model.to_dict(),
                    "data": {"path": str(dataset.folder)},
                    "train": {"tokens": 64, "seq_len": 16, "batch_tokens": 64, "device": "cuda", **train},
                }
            )
            found = resolve_run(config, dataset, elsewhere=True)
            assert resolve_run(found, dataset, elsewhere=True) == found
            return found.train.compile

        wide = {"d_model": 1024}
        assert compiles(wide) == "blocks"
        assert compiles({**wide, **MOE}) == "blocks"
        assert compiles({**wide, **MOE}, dispatch="loop") == "none"
        assert compiles({"d_model": 512}) == "none"
        assert compiles(wide, compile="none") == "none"
        assert compiles(wide, precision="fp32") == "none"
        assert compiles(wide, device="cpu") == "none"

    def test_longer_than_the_text_repeats_all_of_it(self, make_run: Any, dataset: Dataset) -> None:
        config = make_run(tokens=10 * len(dataset.train) // 64 * 64)
        assert config.data.unique_tokens is not None
        assert len(dataset.train) - 17 <= config.data.unique_tokens < len(dataset.train)

    def test_what_does_not_fit_is_named(self, make_run: Any, dataset: Dataset) -> None:
        with pytest.raises(InputError, match=r"model\.vocab_size: must be at least the data's 300"):
            make_run({"vocab_size": 256})
        config = make_run()
        other = config.replace(data={"path": "x", "manifest_hash": "other"})
        with pytest.raises(InputError, match="manifest_hash"):
            resolve_run(other, dataset)
        greedy = config.replace(data={"path": "x", "unique_tokens": 10**9})
        with pytest.raises(InputError, match=r"unique_tokens: must be at most \d+"):
            resolve_run(greedy, dataset)

    @pytest.mark.skipif(torch.cuda.is_available(), reason="only where there is no CUDA device")
    def test_absent_device(self, make_run: Any) -> None:
        with pytest.raises(InputError, match=r"train\.device: cuda"):
            make_run(device="cuda")


def test_count_only_models_are_refused(make_run: Any, dataset: Dataset, tmp_path: Path) -> None:
    config = make_run({"moe": {"n_experts": 4, "top_k": 2, "d_expert": 16, "router": "hash", "router_bias": True}})
    with pytest.raises(InputError, match="cannot train a router bias of the router hash"):
        train_run(config, tmp_path, dataset)


@pytest.mark.parametrize(("steps", "evaluations"), [(10, 1), (10, 3), (3, 8), (1, 1), (4, 10**12)])
def test_the_last_step_is_always_evaluated(steps: int, evaluations: int) -> None:
    marks = evaluation_steps(steps, evaluations)
    assert max(marks) == steps
    assert min(marks) >= 1


def test_the_config_file_names_the_run(make_run: Any, dataset: Dataset, tmp_path: Path) -> None:
    config = make_run()
    record = train_run(config, tmp_path, dataset)
    assert load_yaml(tmp_path / record.run_id / "config.yaml")["train"]["seq_len"] == 16


def test_churn_is_logged_from_the_second_evaluation_on(make_run: Any, dataset: Dataset, tmp_path: Path) -> None:
    record = train_run(make_run(MOE, evaluations=4), tmp_path, dataset)
    assert [("churn" in row) for row in record.loss_curve] == [False, True, True, True]
    assert all({"churn", "churn_top"} <= row.keys() for row in record.routing)
    assert 0 < record.loss_curve[1]["churn"] <= 1
    assert record.row()["routing_churn"] == pytest.approx(record.loss_curve[-1]["churn"])


def test_a_flipped_bit_in_the_data_is_refused_before_training(make_run: Any, dataset: Dataset, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(dataset.folder, tmp_path / "data"))
    copy, config = Dataset.open(folder), make_run(tokens=2 * 64)
    path = folder / "train_00000.bin"
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"train_00000\.bin was changed: its hash is not the manifest's"):
        train_run(config, tmp_path / "runs", copy)
    content[100] ^= 1
    path.write_bytes(content)
    assert train_run(config, tmp_path / "runs", copy).status == "finished"
    assert not copy.verify(always=False)


def test_hashing_the_data_anyway_is_no_part_of_the_run(make_run: Any) -> None:
    assert make_run(verify_data="always").run_id == make_run().run_id


def test_a_lossy_tokenizer_is_noted_in_the_record(make_run: Any, tmp_path: Path, write_texts: Any) -> None:
    from tokenizers import Tokenizer, normalizers

    given = Dataset.open(make_run().data.path)
    tokenizer = Tokenizer.from_file(str(given.tokenizer_path))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.save(str(tmp_path / "lower.json"))
    texts = write_texts(tmp_path / "texts")
    for path in texts.iterdir():
        path.write_text(path.read_text().title())
    recipe = {"sources": [str(texts)], "tokenizer": str(tmp_path / "lower.json"), "allow_lossy": True}
    lossy = prepare(PrepareConfig.parse({**recipe, "validation_share": 0.2}), tmp_path / "data").dataset
    plain = make_run(tokens=2 * 64)
    config = resolve_run(plain.replace(data={"path": str(lossy.folder)}), lossy)
    (note,) = train_run(config, tmp_path / "runs", lossy).notes
    assert re.match(r"data: the tokenizer changed \d+ texts \(texts: .* becomes ", note)
