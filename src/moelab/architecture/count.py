"""A model counted in one call: parameters, FLOPs and memory by part."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moelab.architecture.config import ModelConfig
from moelab.architecture.counts import CONVENTIONS, FlopCount, ParameterCount, count_flops, count_parameters
from moelab.architecture.memory import cache_precision, kv_bytes, training_memory, weight_bytes, weights_precision
from moelab.architecture.presets import load_model
from moelab.notebook import html_table, short_repr
from moelab.quantities import MOST_CONTEXT, check_at_most, format_bytes, format_number, parse_count

Rows = list[tuple[str, str, str]]


@dataclass(frozen=True, kw_only=True)
class ModelCount:
    """Exact counts of one model: `params`, `flops` (forward, per token, at `seq_len` tokens of context), `memory` in
    bytes: weights, kv_cache of one sequence, training_state (bf16, AdamW, no activations)."""

    config: ModelConfig
    params: ParameterCount
    flops: FlopCount
    memory: dict[str, float]
    seq_len: int
    causal: bool
    precision: str

    def to_dict(self) -> dict[str, Any]:
        """Plain data: what `moelab count --json` prints."""
        moe, params = self.config.moe, self.params
        return {
            "params_total": params.params_total,
            "params_active": params.params_active,
            "params_embedding": params.params_embedding,
            "params_router": params.router,
            "params_mtp": params.mtp,
            "params_non_embedding": params.params_non_embedding,
            "params_active_non_embedding": params.params_active_non_embedding,
            "activation_rate": params.activation_rate,
            "granularity": moe.granularity if moe else None,
            "expansion": moe.expansion if moe else None,
            "sparsity": moe.sparsity if moe else None,
            "seq_len": self.seq_len,
            "causal": self.causal,
            "flops_convention": CONVENTIONS[self.causal],
            "flops_per_token_forward": self.flops.forward,
            "flops_per_token_train": self.flops.train,
            "flops_per_token_mtp": self.flops.mtp,
            "memory_bytes": self.memory,
            "params_parts": params.parts,
            "flops_parts": self.flops.parts,
        }

    def parameter_rows(self) -> Rows:
        """Parameters by part with their share, then the sums, as text."""
        params = self.params
        rows = [
            *_parts(params.parts, params.params_total),
            ("total", format_number(params.params_total, 4), ""),
            ("active", format_number(params.params_active, 4), ""),
            *self._without_embedding(),
            ("activation rate (non-embedding)", f"{params.activation_rate:.1%}", ""),
        ]
        if params.mtp:
            rows.append(("multi-token prediction, beside the total", format_number(params.mtp, 4), ""))
        return rows

    def _without_embedding(self) -> Rows:
        """The active parameters as many publications count them; none where the input embedding is the head too."""
        parts = self.params.parts
        if not parts.get("head"):
            return []
        left = self.params.params_active - parts["embedding"]
        return [("active without the input embedding", format_number(left, 4), "")]

    def flop_rows(self) -> Rows:
        """Forward FLOPs per token by part with their share, then the sums, as text."""
        rows = [
            *_parts(self.flops.parts, self.flops.forward),
            ("forward", format_number(self.flops.forward, 4), ""),
        ]
        if self.flops.mtp:
            rows.append(("multi-token prediction, in training only", format_number(self.flops.mtp, 4), ""))
        return [*rows, ("training", format_number(self.flops.train, 4), "")]

    def memory_rows(self) -> list[tuple[str, str]]:
        """What is held in memory, as text."""
        return [
            (f"weights ({weights_precision(self.config, self.precision)})", format_bytes(self.memory["weights"])),
            (
                f"KV cache of one sequence of {self.seq_len:,} ({cache_precision(self.precision)})",
                format_bytes(self.memory["kv_cache"]),
            ),
            ("training state (bf16, AdamW, no activations)", format_bytes(self.memory["training_state"])),
        ]

    @property
    def flop_title(self) -> str:
        """The head of the table of FLOPs: what is counted, at which context."""
        convention = CONVENTIONS[self.causal]
        return f"forward FLOPs per token at {self.seq_len:,} tokens of context, attention scores {convention}"

    def __repr__(self) -> str:
        return short_repr(
            self,
            params_total=self.params.params_total,
            params_active=self.params.params_active,
            flops_per_token_train=self.flops.train,
            seq_len=self.seq_len,
            weight_bytes=self.memory["weights"],
        )

    def _repr_html_(self) -> str:
        return (
            html_table(["parameters", "", "share"], self.parameter_rows())
            + html_table([self.flop_title, "", "share"], self.flop_rows())
            + html_table(["memory", ""], self.memory_rows())
        )


def _parts(parts: dict[str, Any], whole: float) -> Rows:
    return [(name, format_number(value, 4), f"{value / whole:.1%}") for name, value in parts.items() if value]


def count(
    model: ModelConfig | str | Path, *, seq_len: int | str = 4096, causal: bool = False, precision: str = "bf16"
) -> ModelCount:
    """Count a model's parameters, FLOPs per token and memory, exactly, by part.

    Args:
        model: A ModelConfig, a model or run YAML, a run's folder, a preset's name, a Hugging Face config.json or its
            folder, or a GGUF file.
        seq_len: Context in tokens at which attention scores and the KV cache are counted (8192, "8k").
        causal: Count only the causal half of the attention scores, not the full square.
        precision: Of weights and KV cache: fp32, bf16, fp16, fp8, int8, int4; mxfp4 and nvfp4 of weights alone, beside
            a cache in bf16.

    Returns:
        A ModelCount: `params` (parameters), `flops` (forward FLOPs per token; `flops.train` is training), `memory`
        (bytes).

    Raises:
        InputError: A file, preset, context or precision that is not known or not allowed.

    >>> import moelab
    >>> counted = moelab.count("mixtral-8x7b")
    >>> counted.params.params_total, counted.params.params_active
    (46702792704, 12879925248)
    >>> counted.memory["weights"] == 2 * counted.params.params_total  # bf16
    True
    """
    config = model if isinstance(model, ModelConfig) else load_model(model)
    context = parse_count(seq_len, "seq_len")
    check_at_most(context, MOST_CONTEXT, "seq_len")
    return ModelCount(
        config=config,
        params=count_parameters(config),
        flops=count_flops(config, context, causal=causal),
        memory={
            "weights": weight_bytes(config, precision),
            "kv_cache": kv_bytes(config, context, precision),
            "training_state": training_memory(config).total,
        },
        seq_len=context,
        causal=causal,
        precision=precision,
    )
