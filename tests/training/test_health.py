"""Runs that went wrong without an error are noted in words, with numbers; sound runs are not."""

import math
from pathlib import Path
from typing import Any

import pytest

from moelab.data import Dataset
from moelab.model import build_model
from moelab.training import train_run
from moelab.training.checkpoint import load_newest
from moelab.training.health import health_notes
from moelab.training.progress import Progress

MOE = {"moe": {"n_experts": 8, "top_k": 2, "d_expert": 16}}


def notes_of(make_run: Any, progress: Progress, moe: dict[str, Any] | None = None) -> list[str]:
    """The notes of a fresh model with this progress."""
    config = make_run({"moe": {**MOE["moe"], **(moe or {})}})
    return health_notes(config, progress, build_model(config.model))


def routed(*loads: list[float], drop_rate: float = 0.0) -> Progress:
    rows = [{"drop_rate": drop_rate} for _ in loads]
    return Progress(curve=[{"step": 1, "loss": 3.0}], evaluation={"expert_load": list(loads), "routing": rows})


EVEN = [0.125] * 8


def test_a_sound_run_has_no_notes(make_run: Any, dataset: Dataset, tmp_path: Path) -> None:
    assert notes_of(make_run, routed(EVEN, [0.3, 0.2, 0.2, 0.1, 0.05, 0.05, 0.05, 0.05])) == []
    for model, optimizer in ((MOE, "adamw"), (None, "muon")):
        assert train_run(make_run(model, optimizer=optimizer), tmp_path, dataset).notes == []


def test_dead_experts(make_run: Any) -> None:
    load = [0.25, 0.25, 0.2, 0.1, 0.1, 0.1, 0.0, 0.0]
    assert notes_of(make_run, routed(EVEN, load)) == [
        "dead experts took no token of the last evaluation: 2 of 8 in MoE layer 1"
    ]
    (note,) = notes_of(make_run, routed(*[load] * 6))
    assert note.endswith("2 of 8 in MoE layer 3, and 2 more layers")


def test_collapse(make_run: Any) -> None:
    load = [0.48, 0.46, 0.01, 0.01, 0.01, 0.01, 0.01, 0.01]
    assert notes_of(make_run, routed(load, EVEN)) == [
        "the load is on few experts: 2 of 8 experts take 94% of the choices in MoE layer 0"
    ]


def test_nearly_all_is_not_all(make_run: Any) -> None:
    load = [0.4979, 0.4979, 0.0021, 0.0021, 0.0, 0.0, 0.0, 0.0]
    (_, note) = notes_of(make_run, routed(load))
    assert note == "the load is on few experts: 2 of 8 experts take 99.5% of the choices in MoE layer 0"
    (_, note) = notes_of(make_run, routed([0.5, 0.5, *[0.0] * 6]))
    assert "2 of 8 experts take 100% of the choices" in note


def test_drops_of_a_run(make_run: Any, dataset: Dataset, tmp_path: Path) -> None:
    """A capacity of one place for each expert in a batch of 64 tokens: nearly all choices are dropped."""
    record = train_run(make_run({"moe": {**MOE["moe"], "capacity_factor": 0.02}}), tmp_path, dataset)
    assert min(row["drop_rate"] for row in record.routing) > 0.9
    (note,) = [note for note in record.notes if "dropped" in note]
    assert note.startswith("most choices are dropped at capacity_factor 0.02: 9")
    assert note.endswith("% in MoE layer 1")
    assert notes_of(make_run, routed(EVEN, drop_rate=0.98), {"router": "expert_choice", "group_size": 4}) == [
        "most tokens are read by no expert: 98% in MoE layer 0"
    ]


def test_no_learning(make_run: Any, dataset: Dataset, tmp_path: Path) -> None:
    record = train_run(make_run(learning_rate=1e-9), tmp_path, dataset)
    assert record.status == "finished"
    assert record.notes == [
        f"no learning: the lowest loss of 2 evaluations is {min(row['loss'] for row in record.loss_curve):.3f} nats "
        f"per token, and guessing uniformly gives ln 300 = {math.log(300):.3f}"
    ]


def test_exploding_norms(make_run: Any, dataset: Dataset, tmp_path: Path) -> None:
    progress = routed(EVEN)
    progress.first_norms, progress.recent_norms = [1.0] * 50, [300.0] * 50
    assert notes_of(make_run, progress) == [
        "gradient norms exploded: their mean before clipping is 1 over the first 50 steps and 300 over the last 50"
    ]
    record = train_run(make_run(learning_rate=30.0, weight_decay=0), tmp_path, dataset)
    assert record.status == "finished"
    assert any(note.startswith("weights exploded: the root mean square of ") for note in record.notes)


def test_an_infinite_gradient_norm_is_kept_as_a_number(
    make_run: Any, train_until: Any, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkpoint is JSON, which has no infinity."""
    monkeypatch.setattr("moelab.training.optimizer.Optimizer.step", lambda self, rate: math.inf)
    config = make_run()
    train_until(config, tmp_path, dataset, 3)
    found, _ = load_newest(tmp_path / config.run_id / "checkpoints", config.run_id)
    assert found is not None
    assert found.progress.recent_norms == [1e30] * 3


def test_muon_steps_on_experts_without_tokens(
    make_run: Any, train_until: Any, dataset: Dataset, tmp_path: Path
) -> None:
    """One sequence of 16 tokens a step cannot reach 32 experts; the count survives a kill."""
    crowd = {"moe": {"n_experts": 32, "top_k": 1, "d_expert": 8}}
    config = make_run(crowd, optimizer="muon", batch_tokens=16, tokens=30 * 16, learning_rate=0.001)
    straight = train_run(config, tmp_path / "a", dataset)
    train_until(config, tmp_path / "b", dataset, 13)
    resumed = train_run(config, tmp_path / "b", dataset)
    (note,) = [note for note in straight.notes if note.startswith("Muon moved experts that had no token")]
    assert note.endswith(f"of {30 * 2 * 32:,} expert steps")
    assert note in resumed.notes


@pytest.mark.parametrize(
    ("idle", "steps", "noted"),
    [(0, 0, False), (2, 160, False), (5, 160, True), (100, 10_000, False), (120, 10_000, True)],
)
def test_few_steps_do_not_decide_about_idle_experts(make_run: Any, idle: int, steps: int, noted: bool) -> None:
    """2 of 160 is more than 1 %, but may be chance."""
    progress = Progress(expert_steps=steps, idle_expert_steps=idle)
    notes = notes_of(make_run, progress)
    assert any("Muon moved experts" in note for note in notes) == noted
