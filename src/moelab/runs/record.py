"""What came out of one run: a flat record with the columns every table, law and report uses."""

from typing import Any, Literal

from moelab.architecture import ModelConfig, count_flops, count_parameters
from moelab.config import Config
from moelab.notebook import html_table, short_repr
from moelab.runs.config import RunConfig

_NESTED = {"labels", "loss_by_source", "loss_curve", "routing", "expert_load", "spike_steps", "versions", "notes"}
_NO_COLUMN = {*_NESTED, "weights_sha256", "started"}


_SHOWN = (
    "run_id",
    "name",
    "status",
    "kind",
    "loss",
    "bits_per_byte",
    "params_total",
    "params_active",
    "tokens",
    "train_flops",
)
"""Columns of the text of a record."""


class RunRecord(Config):
    """The outcome of one run. Losses are validation cross-entropy in nats per token; `train_flops` is the exact count.

    A dense model stands as one expert that every token uses (`n_experts` 1, `sparsity` 0, `granularity` 1), which
    is the limit the laws take. `loss` is as trained; `loss_leak_free` the same with capacity lifted and mixing off,
    null where that is equal by construction. `loss_curve` rows are evaluations; `routing` holds one row per MoE
    layer, `expert_load` each expert's share of its choices. After a transition (`transition_step` steps) the
    architecture's columns describe what the model has become, `train_flops` adds up both parts and
    `flops_per_token` is their mean. `spikes` counts the steps (`spike_steps`, the first hundred) whose training
    loss jumped; a run that diverged `stopped_at` a step. `started` is when the run began (UTC, ISO 8601), also where
    it was resumed. `weights_sha256` is that of the file of trained weights. Both are null in records of 0.1.
    `shared` is how many runs shared its device at a time: its `seconds` and `tokens_per_second` are not those of a run
    alone. It is null where none did.
    """

    run_id: str
    name: str = ""
    status: Literal["finished", "diverged"]
    kind: Literal["dense", "moe"]
    labels: dict[str, str] = {}
    loss: float | None = None
    loss_leak_free: float | None = None
    bits_per_byte: float | None = None
    train_loss: float | None = None
    loss_by_source: dict[str, float] = {}
    params_total: int
    params_active: int
    params_non_embedding: int
    params_active_non_embedding: int
    activation_rate: float
    router: str = ""
    n_experts: int
    top_k: int
    n_shared_experts: int
    d_expert: int
    d_shared: int
    granularity: float
    expansion: float
    sparsity: float
    d_model: int
    d_ff: int
    n_layers: int
    n_dense_layers: int
    n_heads: int
    vocab_size: int
    seq_len: int
    tokens: int
    unique_tokens: int
    epochs: float
    flops_per_token: float
    train_flops: float
    batch_tokens: int
    learning_rate: float
    optimizer: str
    schedule: str
    seed: int
    transition_step: int | None = None
    parent_run: str | None = None
    parent_step: int | None = None
    device: str
    precision: str
    threads: int
    dispatch: str
    started: str | None = None
    seconds: float
    tokens_per_second: float
    peak_memory_bytes: int
    resumed: int = 0
    spikes: int = 0
    spike_steps: list[int] = []
    stopped_at: int | None = None
    processes: int = 1
    shared: int | None = None
    data_hash: str
    weights_sha256: str | None = None
    loss_curve: list[dict[str, float]] = []
    routing: list[dict[str, float]] = []
    expert_load: list[list[float]] = []
    versions: dict[str, str] = {}
    notes: list[str] = []

    def to_dict(self) -> dict[str, Any]:
        """Plain data that `parse` reads back; what was not measured or does not apply is null."""
        return self.model_dump(mode="json")

    def __repr__(self) -> str:
        return short_repr(self, **{name: getattr(self, name) for name in _SHOWN})

    def _repr_html_(self) -> str:
        rows = [(name, value) for name, value in self if isinstance(value, str | int | float) and value != ""]
        return html_table(["column", "value"], rows, title=f"run {self.run_id}")

    def row(self) -> dict[str, Any]:
        """The record as one row of a table: scalars only, labels as columns of their own."""
        row = {key: value for key, value in self.model_dump(mode="json").items() if key not in _NO_COLUMN}
        return {**self.labels, **row, **_routing_columns(self.routing)}


def model_columns(config: ModelConfig, seq_len: int) -> dict[str, Any]:
    """The columns that an architecture alone decides. `flops_per_token` is forward and backward at `seq_len`."""
    counts, moe = count_parameters(config), config.moe
    return {
        "kind": "moe" if moe else "dense",
        "params_total": counts.params_total,
        "params_active": counts.params_active,
        "params_non_embedding": counts.params_non_embedding,
        "params_active_non_embedding": counts.params_active_non_embedding,
        "activation_rate": counts.activation_rate,
        "router": moe.router if moe else "dense",
        "n_experts": moe.n_experts if moe else 1,
        "top_k": moe.top_k if moe else 1,
        "n_shared_experts": moe.n_shared_experts if moe else 0,
        "d_expert": moe.d_expert if moe else config.d_ff,
        "d_shared": moe.d_shared if moe else 0,
        "granularity": moe.granularity if moe else 1.0,
        "expansion": moe.expansion if moe else 1.0,
        "sparsity": moe.sparsity if moe else 0.0,
        "d_model": config.d_model,
        "d_ff": config.d_ff or (moe.reference_width if moe else 0),
        "n_layers": config.n_layers,
        "n_dense_layers": config.n_dense_layers if moe else config.n_layers,
        "n_heads": config.n_heads,
        "vocab_size": config.vocab_size,
        "seq_len": seq_len,
        "flops_per_token": float(count_flops(config, seq_len).train),
    }


def run_columns(config: RunConfig) -> dict[str, Any]:
    """The columns known before a run starts: its model's, and the tokens and FLOPs it will spend."""
    train = config.train
    columns = model_columns(config.final_model, train.seq_len)
    tokens = train.steps * train.batch_tokens
    unique = min(config.data.unique_tokens or tokens, tokens)
    if train.switch_step is not None:
        before = train.switch_step / train.steps
        first = float(count_flops(config.model, train.seq_len).train)
        columns["flops_per_token"] = before * first + (1 - before) * columns["flops_per_token"]
    return {
        **columns,
        "name": config.name or "",
        "labels": config.labels,
        "tokens": tokens,
        "unique_tokens": unique,
        "epochs": tokens / unique,
        "train_flops": columns["flops_per_token"] * tokens,
        "batch_tokens": train.batch_tokens,
        "learning_rate": train.learning_rate,
        "optimizer": train.optimizer,
        "schedule": train.schedule,
        "seed": train.seed,
        "transition_step": train.switch_step,
        "parent_run": config.parent.run if config.parent else None,
        "parent_step": config.parent.step if config.parent else None,
    }


def _routing_columns(routing: list[dict[str, float]]) -> dict[str, float]:
    """Worst layer for balance, total for dead experts, mean for the entropies."""
    if not routing:
        return {}
    columns = {}
    for name in routing[0]:
        values = [layer[name] for layer in routing]
        worst = max(values) if name == "max_violation" else sum(values) / len(values)
        columns[f"routing_{name}"] = float(sum(values)) if name == "dead_experts" else float(worst)
    return columns
