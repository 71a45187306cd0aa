"""A spike is a loss far above those before it; noise, a fall and the first steps are none; NaN is recorded."""

import math
from pathlib import Path
from typing import Any

import numpy as np

from moelab.data import Dataset
from moelab.runs import RunFolder
from moelab.training import Trainer, train_run
from moelab.training.spikes import is_spike


def test_noise_and_a_fall_are_no_spikes() -> None:
    noise = np.random.default_rng(0).normal(0, 0.05, 2000)
    losses = 6 * np.exp(-np.arange(2000) / 300) + 2 + noise
    assert not any(is_spike(losses[i], losses[max(0, i - 50) : i].tolist()) for i in range(2000))


def test_jumps_and_numbers_that_are_none_are() -> None:
    before = [3.0 + 0.01 * (-1) ** i for i in range(50)]
    assert is_spike(3.2, before)
    assert not is_spike(3.05, before)
    assert not is_spike(9.0, before[:19])
    assert is_spike(math.nan, [])
    assert is_spike(math.inf, before)


def test_spikes_are_counted_and_survive_a_kill(
    make_run: Any, train_until: Any, dataset: Dataset, tmp_path: Path
) -> None:
    config = make_run()
    trainer = Trainer(config, RunFolder.create(tmp_path, config), dataset)
    inner = trainer.step

    def jump() -> float:
        loss = inner()
        return loss + (20.0 if trainer.progress.step == 25 else 0.0)

    trainer.step = jump  # type: ignore[method-assign]
    trainer.run(checkpoint_seconds=0)
    trainer.progress.step -= 1
    trainer.save(1.0)
    record = train_run(config, tmp_path, dataset)
    assert (record.spikes, record.spike_steps, record.stopped_at) == (1, [25], None)
    assert "spike_steps" not in record.row()


def test_divergence_is_recorded_with_its_step(make_run: Any, dataset: Dataset, tmp_path: Path) -> None:
    record = train_run(make_run(learning_rate=1e30, grad_clip=0), tmp_path, dataset)
    assert record.status == "diverged"
    assert record.stopped_at is not None
    assert record.spike_steps[-1] == record.stopped_at < 40


def test_a_loss_lost_in_the_last_step_is_a_divergence(make_run: Any, dataset: Dataset, tmp_path: Path) -> None:
    record = train_run(make_run(learning_rate=1e30, grad_clip=0, tokens=64), tmp_path, dataset)
    assert (record.status, record.loss, record.loss_curve) == ("diverged", None, [])
