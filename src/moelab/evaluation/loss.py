"""Validation loss: cross-entropy in nats per token, bits per byte, and the loss of each source by itself."""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from moelab.architecture import ModelConfig
from moelab.data import Dataset, ValidationBatches
from moelab.model import LanguageModel, churn, leak_free, leaks
from moelab.notebook import Shown


@dataclass(frozen=True, kw_only=True, repr=False)
class Evaluation(Shown):
    """Means over the evaluated tokens; `routing` has a row of statistics per MoE layer, `expert_load` its shares.

    `loss_leak_free` is the loss with capacity lifted and mixing off; None where the model leaks nothing. `choices`
    (2, T) of every MoE layer hold which experts the tokens of the first batch took, for the churn since then.
    """

    loss: float
    loss_leak_free: float | None = None
    bits_per_byte: float
    tokens: int
    loss_by_source: dict[str, float] = field(default_factory=dict)
    routing: list[dict[str, float]] = field(default_factory=list)
    expert_load: list[list[float]] = field(default_factory=list)
    choices: list[Tensor] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Plain data that `Evaluation(**data)` reads back, without the choices."""
        return {key: value for key, value in vars(self).items() if key != "choices"}


def validation_batches(
    dataset: Dataset, model: ModelConfig, *, seq_len: int, trained_rows: int, max_tokens: int, rows: int = 32
) -> ValidationBatches:
    """Held-out batches in which tokens meet as many others as in training, where a forward pass has `trained_rows`.

    About `rows` sequences each: whole groups where the router groups sequences, `trained_rows` where the whole batch
    is one group or shares a capacity. At least one such batch, even where `max_tokens` are fewer, unless the held-out
    text is shorter; of less than a batch of groups, whole groups remain.
    """
    moe, together = model.moe, 1
    if moe is not None and leaks(model):
        if moe.capacity_factor is not None:
            together = rows = trained_rows
        elif (moe.grouping or "batch") == "batch":
            together = moe.group_size or trained_rows
            rows = max(rows // together, 1) * together if moe.group_size else trained_rows
    batches = ValidationBatches(dataset, seq_len, rows, max(max_tokens, together * seq_len))
    found = batches.tokens // seq_len
    if together < found < rows and found % together:
        batches = ValidationBatches(dataset, seq_len, found - found % together, batches.tokens)
    return batches


@torch.no_grad()
def evaluate(
    model: LanguageModel,
    batches: ValidationBatches,
    *,
    device: str = "cpu",
    precision: str = "fp32",
    before: list[Tensor] | None = None,
) -> Evaluation:
    """Mean cross-entropy of `batches`, as trained and leak-free; bits per byte = nats x tokens / (bytes ln 2).

    With the `choices` of an evaluation `before`, the rows of `routing` also hold the churn since then.
    """
    choices: list[Tensor] = []
    nats, alone, tokens, n_bytes = 0.0, 0.0, 0, 0
    leaky = leaks(model.config)
    by_source: dict[str, list[float]] = {}
    routing: list[list[dict[str, float]]] = []
    loads: list[list[Tensor]] = []
    was_training = model.training
    model.eval()
    for batch in batches:
        inputs = torch.from_numpy(batch.inputs).to(device)
        targets = torch.from_numpy(batch.targets).to(device)
        with torch.autocast(device, torch.bfloat16, enabled=precision == "bf16"):
            output = model.loss(inputs, targets, reduction="none", collect_routing=True)
            if leaky:
                with leak_free(model):
                    alone += float(model.loss(inputs, targets, reduction="none").loss.double().sum())
        losses = output.loss.double().cpu().numpy()
        nats, tokens, n_bytes = nats + float(losses.sum()), tokens + losses.size, n_bytes + int(batch.bytes.sum())
        _add_sources(by_source, [batches.sources[index] for index in batch.source], losses)
        choices = choices or [record.choices for record in output.routing]
        routing.append([record.summary() for record in output.routing])
        loads.append([record.load for record in output.routing])
    model.train(was_training)
    rows = _mean_rows(routing)
    for row, then, now in zip(rows, before or [], choices, strict=bool(before)):
        row |= churn(then, now)
    return Evaluation(
        loss=nats / tokens,
        loss_leak_free=alone / tokens if leaky else None,
        bits_per_byte=nats / (n_bytes * math.log(2)),
        tokens=tokens,
        loss_by_source={name: total / count for name, (total, count) in sorted(by_source.items())},
        routing=rows,
        expert_load=[torch.stack(layer).mean(0).tolist() for layer in zip(*loads, strict=True)],
        choices=choices,
    )


def _add_sources(totals: dict[str, list[float]], sources: list[str], losses: np.ndarray) -> None:
    for name, row in zip(sources, losses, strict=True):
        entry = totals.setdefault(name, [0.0, 0.0])
        entry[0] += float(row.sum())
        entry[1] += row.size


def _mean_rows(batches: list[list[dict[str, float]]]) -> list[dict[str, float]]:
    """Average the statistics of every layer over the batches."""
    if not batches or not batches[0]:
        return []
    return [
        {name: float(np.mean([rows[layer][name] for rows in batches])) for name in batches[0][layer]}
        for layer in range(len(batches[0]))
    ]
