"""The record of a run that has just ended."""

import platform
from collections.abc import Sequence

import numpy as np
import torch

from moelab.evaluation import Evaluation
from moelab.model import LanguageModel
from moelab.model.fallbacks import fallbacks
from moelab.runs import RunConfig, RunRecord, run_columns
from moelab.training.health import health_notes
from moelab.training.kernels import kernels_of
from moelab.training.memory import peak_memory_bytes
from moelab.training.progress import Progress
from moelab.version import __version__


def make_record(
    config: RunConfig,
    progress: Progress,
    evaluation: Evaluation | None,
    seconds: float,
    *,
    model: LanguageModel,
    weights_sha256: str,
    notes: Sequence[str] = (),
    shared: int | None = None,
) -> RunRecord:
    """What came out; `evaluation` is None for a run that diverged. `seconds` is this run's own time, `notes` are the
    data's, `shared` is how many runs share its device."""
    train = config.train
    start = config.parent.step if config.parent else 0
    return RunRecord(
        **run_columns(config),
        run_id=config.run_id,
        status="finished" if evaluation else "diverged",
        loss=evaluation.loss if evaluation else None,
        loss_leak_free=evaluation.loss_leak_free if evaluation else None,
        bits_per_byte=evaluation.bits_per_byte if evaluation else None,
        loss_by_source=evaluation.loss_by_source if evaluation else {},
        routing=evaluation.routing if evaluation else [],
        expert_load=evaluation.expert_load if evaluation else [],
        train_loss=float(np.mean(progress.recent_losses)) if evaluation else None,
        loss_curve=progress.curve,
        device=train.device,
        precision=train.precision,
        threads=train.threads,
        dispatch=train.dispatch,
        started=progress.started or None,
        seconds=seconds,
        tokens_per_second=(progress.step - start) * train.batch_tokens / seconds,
        peak_memory_bytes=peak_memory_bytes(train.device),
        resumed=progress.resumed,
        spikes=len(progress.spikes),
        spike_steps=progress.spikes[:100],
        stopped_at=None if evaluation else progress.step,
        processes=train.processes,
        shared=shared,
        notes=[*progress.notes, *_notes(config), *notes, *health_notes(config, progress, model)],
        data_hash=config.data.manifest_hash or "",
        versions={
            "moelab": __version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
            "kernels": kernels_of(train),
        },
        weights_sha256=weights_sha256,
    )


def _notes(config: RunConfig) -> list[str]:
    """What was asked for and could not be done, and what no fused kernel computed."""
    train, found = config.train, [fallbacks(config.model, kernels_of(config.train))]
    if train.evaluations > train.steps:
        asked = f"{train.evaluations} were asked for, but a run of {train.steps} steps has one per step"
        found.append(f"train.evaluations: {asked}")
    return [note for note in found if note]
