"""`moelab count`: parameters, FLOPs per token and memory of an architecture, by part."""

from typing import Annotated

import typer


def command(
    config: Annotated[str, typer.Argument(help="Model YAML, run YAML, run folder, or a preset's name.")],
    seq_len: Annotated[str, typer.Option(help="Context at which attention scores are counted.")] = "4096",
    causal: Annotated[bool, typer.Option(help="Count only the causal half of the scores.")] = False,
    precision: Annotated[str, typer.Option(help="Of weights and KV cache: fp32, bf16, fp8, int4.")] = "bf16",
    json: Annotated[bool, typer.Option("--json", help="Print JSON only.")] = False,
) -> None:
    """Count parameters, FLOPs per token and memory of an architecture, exactly, by part.

    Example: moelab count mixtral-8x7b --seq-len 8k
    """
    from moelab.architecture import count_flops, count_parameters, load_model
    from moelab.architecture.memory import kv_bytes, training_memory, weight_bytes
    from moelab.cli.output import print_json, print_line, print_table
    from moelab.quantities import MOST_CONTEXT, check_at_most, format_bytes, format_number, parse_count

    model, context = load_model(config), parse_count(seq_len, "--seq-len")
    check_at_most(context, MOST_CONTEXT, "--seq-len")
    params, flops = count_parameters(model), count_flops(model, context, causal=causal)
    memory = {
        "weights": weight_bytes(model, precision),
        "kv_cache": kv_bytes(model, context, precision),
        "training_state": training_memory(model).total,
    }
    if json:
        print_json(
            {
                "params_total": params.params_total,
                "params_active": params.params_active,
                "params_embedding": params.params_embedding,
                "params_router": params.router,
                "params_non_embedding": params.params_non_embedding,
                "params_active_non_embedding": params.params_active_non_embedding,
                "activation_rate": params.activation_rate,
                "granularity": model.moe.granularity if model.moe else None,
                "expansion": model.moe.expansion if model.moe else None,
                "sparsity": model.moe.sparsity if model.moe else None,
                "seq_len": context,
                "causal": causal,
                "flops_per_token_forward": flops.forward,
                "flops_per_token_train": flops.train,
                "memory_bytes": memory,
                "params_parts": params.parts,
                "flops_parts": flops.parts,
            }
        )
        return
    print_table(
        ["parameters", "", "share"],
        [
            (name, format_number(value, 4), f"{value / params.params_total:.1%}")
            for name, value in params.parts.items()
            if value
        ]
        + [
            ("total", format_number(params.params_total, 4), ""),
            ("active", format_number(params.params_active, 4), ""),
            ("activation rate (non-embedding)", f"{params.activation_rate:.1%}", ""),
        ],
    )
    print_line()
    print_table(
        [f"forward FLOPs per token at {context:,} tokens of context", "", "share"],
        [
            (name, format_number(value, 4), f"{value / flops.forward:.1%}")
            for name, value in flops.parts.items()
            if value
        ]
        + [
            ("forward", format_number(flops.forward, 4), ""),
            ("training", format_number(flops.train, 4), ""),
        ],
    )
    print_line()
    print_table(
        ["memory", ""],
        [
            (f"weights ({precision})", format_bytes(memory["weights"])),
            (f"KV cache of one sequence of {context:,} ({precision})", format_bytes(memory["kv_cache"])),
            ("training state (bf16, AdamW, no activations)", format_bytes(memory["training_state"])),
        ],
    )
