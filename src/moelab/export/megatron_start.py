"""Initial weights in Megatron-LM's arguments: one standard deviation for all matrices, one for embeddings.

Megatron-LM (d98e8a6, transformer_config.py) draws every matrix from a normal of --init-method-std, those that write to
the residual stream over sqrt(2 layers); a deviation by matrix has no argument.
"""

from moelab.architecture import ModelConfig
from moelab.export.launch import EMBEDDING_STD


def start_flags(model: ModelConfig) -> dict[str, str | None]:
    """Standard deviations of initial weights: 1/sqrt(d_model), over sqrt(2 n_layers) where a matrix writes to the
    residual stream, and moelab's own of embeddings. They are those of the run config where the fan-in is d_model."""
    return {"--init-method-std": f"{model.d_model**-0.5:.6g}", "--embedding-init-method-std": f"{EMBEDDING_STD:g}"}


def start_reason(model: ModelConfig) -> str:
    """What the initial weights have in common with those of the run config, and what differs, in words."""
    widths = ", ".join(f"{fan_in:,}" for fan_in in sorted(_fan_ins(model) - {0, model.d_model}))
    differs = f"; matrices of fan-in {widths} start there at 1/sqrt of it" if widths else ""
    head = "" if model.tie_embeddings else f"; the output head starts there at {EMBEDDING_STD:g}"
    return f"1/sqrt(d_model), over sqrt(2 layers) for residual outputs, as in run.yaml{differs}{head}"


def _fan_ins(model: ModelConfig) -> set[int]:
    """The fan-ins of all matrices, 0 where there is no such matrix."""
    mla, moe = model.mla, model.moe
    found = {model.d_model, model.n_heads * (model.head_dim if mla is None else mla.v_head_dim), model.d_ff or 0}
    if moe is not None:
        found |= {moe.d_expert, moe.d_shared if moe.n_shared_experts else 0}
    if mla is not None:
        found |= {mla.q_lora_rank or 0, mla.kv_lora_rank}
    return found
