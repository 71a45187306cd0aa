"""The memory that a run needs, estimated from the counts and tested against measured peaks; a machine's free memory."""

from pathlib import Path

from moelab.architecture import ModelConfig
from moelab.architecture.memory import training_memory
from moelab.runs import RunConfig

BASE_BYTES = 400e6
"""A process with PyTorch and nothing else."""

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
