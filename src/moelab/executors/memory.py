"""The memory that a run needs, estimated from the counts and tested against measured peaks; a machine's free memory."""

from pathlib import Path

from moelab.architecture import ModelConfig, Shape, count_parameters
from moelab.architecture.layout import Layout
from moelab.architecture.memory import bytes_of, training_memory
from moelab.architecture.training_memory import TrainingStep, device_memory
from moelab.runs import RunConfig

BASE_BYTES = 400e6
"""A process with PyTorch and nothing else."""

WORKSPACE_BYTES = 32 * 2**20
"""PyTorch's workspace of cuBLAS for one stream on Hopper, the largest of its defaults."""

_SAVED_PER_LAYER = 34
"""Numbers of width d_model that a layer keeps per token for the backward pass, its feed-forward's width aside."""


def run_memory(config: RunConfig) -> int:
    """Bytes that a run's process is expected to need at its peak, on the generous side.

    Weights, gradients and optimiser state of fp32 master weights; per token of a forward pass the activations that the
    backward pass needs, the attention scores (no flash attention is assumed), and logits with their gradient.
    """
    model, train = config.model, config.train
    state = float(training_memory(model, "fp32", train.optimizer).total)
    tokens = (train.micro_batch or train.local_batch_size) * train.seq_len
    width = _SAVED_PER_LAYER * model.d_model + 6 * _hidden_width(model)
    scores = 2 * model.n_heads * train.seq_len
    activations = 4.0 * tokens * (model.n_layers * (width + scores) + 3 * model.vocab_size)
    return int(BASE_BYTES + 1.3 * state + activations)


def shared_memory(config: RunConfig) -> float:
    """Bytes that a run adds to a process that trains others too: the exact count of a device's training memory.

    On CUDA activations count twice: a recorded step keeps its own beside those of evaluations and first steps. The
    bf16 copies of matrices and the workspace of the stream's matrix products come on top.
    """
    model, train = config.model, config.train
    if train.device != "cuda":
        return run_memory(config) - BASE_BYTES
    step = TrainingStep(
        micro_batch=train.micro_batch or train.local_batch_size,
        seq_len=train.seq_len,
        recompute=train.recompute or "none",
        precision=train.precision,
        optimizer=train.optimizer,
    )
    found = device_memory(Shape.of(model), Layout(), step)
    copies = 0.0 if train.precision == "fp32" else bytes_of(train.precision) * count_parameters(model).params_trained
    return float(found.total + found.activations + found.working + copies) + WORKSPACE_BYTES


def free_device_memory() -> float:
    """Bytes of this process's CUDA device that it may still take, what its allocator keeps included."""
    import torch

    kept = torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
    return float(torch.cuda.mem_get_info()[0] + kept)


def _hidden_width(model: ModelConfig) -> int:
    """Feed-forward numbers per token and layer."""
    moe = model.moe
    return model.d_ff or 0 if moe is None else moe.top_k * moe.d_expert + moe.d_shared


def free_memory() -> float | None:
    """Bytes that new processes may take: the system's, or a control group's limit if lower; None if unknown."""
    found = [value for value in (_system(), control_group_memory()) if value is not None]
    return min(found) if found else None


def _system() -> float | None:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return float(line.split()[1]) * 1024
    except OSError:
        pass
    return None


def control_group_memory(folder: Path = Path("/sys/fs/cgroup")) -> float | None:
    """What is left of a limit of control groups (version 2, then 1); file caches count as left."""
    for limit, used, stat in (
        ("memory.max", "memory.current", "memory.stat"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat"),
    ):
        try:
            most = float((folder / limit).read_text())
            taken = float((folder / used).read_text())
            cached = dict(line.split() for line in (folder / stat).read_text().splitlines())
        except (OSError, ValueError):
            continue
        return most - taken + float(cached.get("inactive_file", cached.get("total_inactive_file", 0)))
    return None
