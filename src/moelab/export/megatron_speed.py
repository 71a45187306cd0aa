"""Flags of Megatron-LM that change speed and no number: exchanges behind computation and fused kernels, each with why.

Read in Megatron-LM at d98e8a6 (arguments.py and transformer_config.py check what goes together) and in the recipes of
Megatron-Bridge at 067f987, on whose runs the predicted MFU rests. Interleaved exchanges of the pipeline and the fusions
of activations, rotary positions and gradient accumulation are on without a flag.
"""

from moelab.export.launch import Launch

Flag = tuple[str, str | None, str]
"""Name, value (None for a flag without one), and why it is there."""

COLLECTIONS = "100"
"""Iterations between garbage collections, as in the recipes of Megatron-Bridge."""


def speed_flags(launch: Launch) -> list[Flag]:
    """The flags that Megatron-LM's and Megatron-Bridge's own MoE runs set, where the layout allows them."""
    return [*_data_parallel(launch), *_tensor_parallel(launch), *_experts(launch), *_always()]


def _data_parallel(launch: Launch) -> list[Flag]:
    """Both need the distributed optimizer or FSDP; without a layout all devices are data parallel."""
    layout = launch.layout
    if layout is not None and (layout.zero == 0 or layout.dp * layout.cp == 1):
        return []
    return [
        ("--overlap-grad-reduce", None, "gradients are reduced while the backward pass goes on"),
        ("--overlap-param-gather", None, "weights are gathered while the forward pass goes on"),
    ]


def _tensor_parallel(launch: Launch) -> list[Flag]:
    """Needs sequence parallelism, which goes with tensor parallelism here. Recipes with latent attention or FSDP leave
    it out."""
    layout = launch.layout
    if layout is None or layout.tp == 1 or layout.zero > 1 or launch.model.mla is not None:
        return []
    return [("--tp-comm-overlap", None, "exchanges of tensor parallelism run behind products, as in recipes of Qwen3")]


def _experts(launch: Launch) -> list[Flag]:
    if launch.model.moe is None:
        return []
    return [
        ("--moe-permute-fusion", None, "one kernel puts tokens in the order of experts and back (TE 2.1)"),
        ("--moe-router-fusion", None, "one kernel for scores, top-k and balance loss (TE 2.7)"),
    ]


def _always() -> list[Flag]:
    return [
        ("--cross-entropy-loss-fusion", None, "the loss keeps fewer copies of the logits"),
        ("--manual-gc", None, "all ranks collect garbage at one time, so that none waits for another"),
        ("--manual-gc-interval", COLLECTIONS, "iterations between them"),
    ]


def environment(launch: Launch) -> list[str]:
    """Lines about the environment that Megatron-LM's checks ask for, and what is left to try."""
    layout, lines = launch.layout, list[str]()
    if layout is None:
        return lines
    if layout.zero > 1:
        lines.append("CUDA_DEVICE_MAX_CONNECTIONS must not be 1: Megatron-FSDP refuses it.")
    elif layout.tp > 1 or layout.cp > 1:
        lines.append("export CUDA_DEVICE_MAX_CONNECTIONS=1: tensor and context parallelism need it before Blackwell.")
    if can_hide_experts(launch):
        lines.append(
            "To try where memory is left: --overlap-moe-expert-parallel-comm --delay-wgrad-compute hide the exchanges "
            "of experts behind the other pass"
            + ("." if layout.tp * layout.cp == 1 else "; Megatron-LM advises against it beside tp or cp on Hopper.")
        )
    return lines


def can_hide_experts(launch: Launch) -> bool:
    """Whether Megatron-LM takes --overlap-moe-expert-parallel-comm with this layout."""
    layout, moe = launch.layout, launch.model.moe
    if layout is None or moe is None or layout.ep == 1:
        return False
    pipeline = layout.pp == 1 or layout.vp > 1
    return pipeline and launch.recompute != "full" and launch.precision != "fp32" and (launch.model.mtp_layers or 0) < 2
