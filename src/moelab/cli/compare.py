"""`moelab compare`: two designs, or one and its dense baseline, at equal resources."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from moelab.planning.compare import DesignComparison


DENSE = "dense baseline"
STRICT = ("strict reuse", DENSE)
"""The two parts with equal distinct tokens, where the dense baseline is derived from one design."""


def command(
    design: Annotated[str, typer.Argument(help="Model YAML, run YAML, run folder, or a preset's name.")],
    other: Annotated[str | None, typer.Argument(help="Another; without it, the first one's dense baseline.")] = None,
    flops: Annotated[str, typer.Option(help="Training FLOPs of each.")] = "1e21",
    unique_tokens: Annotated[str | None, typer.Option(help="Distinct tokens for every design.")] = None,
    equal: Annotated[str, typer.Option(help="Of params, flops, tokens, unique_tokens: refuse if they differ.")] = "",
    seq_len: Annotated[str, typer.Option(help="Context at which FLOPs are counted.")] = "4096",
    hardware: Annotated[str | None, typer.Option(help="Devices that serve: h100, ..., or YAML.")] = None,
    precision: Annotated[str, typer.Option(help="Of served weights: bf16, fp8, int4.")] = "bf16",
    law: Annotated[list[str] | None, typer.Option("--law", help="A law's id, all, or a fit file; repeatable.")] = None,
    extrapolate: Annotated[bool, typer.Option(help="Use laws beyond their range of experts and sparsity.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON only.")] = False,
) -> None:
    """Compare designs: parameters, FLOPs, tokens, epochs, memory, serving, and the loss by each law.

    One MoE design is compared with its dense baseline of equal parameters and FLOPs. The MoE is given the baseline's
    tokens only (strict reuse), or two epochs of its own (loose), as in arXiv 2506.12119. --equal unique_tokens keeps
    the strict pair.

    Example: moelab compare olmoe-1b-7b --flops 1e22
    """
    from moelab.architecture import load_model
    from moelab.cli.output import print_json
    from moelab.cli.plan import laws_named
    from moelab.errors import InputError
    from moelab.planning.budget import Serving
    from moelab.planning.compare import EQUAL, check_equal, compare_designs
    from moelab.quantities import MOST_CONTEXT, MOST_FLOPS, MOST_TOKENS, check_at_most, parse_count, parse_number

    wanted = [name.strip() for name in equal.split(",") if name.strip()]
    unknown = [name for name in wanted if name not in EQUAL]
    if unknown:
        raise InputError(f"--equal: no such quantity {unknown[0]!r}; known: {', '.join(EQUAL)}")
    budget, context = parse_number(flops, "--flops"), parse_count(seq_len, "--seq-len")
    check_at_most(budget, MOST_FLOPS, "--flops")
    check_at_most(context, MOST_CONTEXT, "--seq-len")
    unique = None if unique_tokens is None else parse_count(unique_tokens, "--unique-tokens")
    if unique is not None:
        check_at_most(unique, MOST_TOKENS, "--unique-tokens")
    models = [(name, load_model(name)) for name in (design, other) if name is not None]
    if other is None:
        parts = _with_baseline(design, models[0][1], budget, context, unique)
        if "unique_tokens" in wanted:
            parts = [part for part in parts if part[0] in STRICT]
    else:
        parts = [(name, _trained(model, budget, context, unique)) for name, model in models]
    serving = None
    if hardware is not None:
        serving = Serving.parse({"hardware": hardware, "traffic": {"precision": precision}}, "compare")
    result = compare_designs(
        parts,
        laws_named(law or ["all"]),
        seq_len=context,
        serving=serving,
        precision=precision,
        extrapolate=extrapolate,
    )
    check_equal(result.sides, wanted, given=len(models))
    if json:
        print_json(result.to_dict())
        return
    _print(result)


def _trained(model: Any, flops: float, seq_len: int, unique: int | None) -> Any:
    """A model with the tokens that the compute buys."""
    from moelab.architecture import count_flops
    from moelab.errors import InputError

    tokens = round(flops / count_flops(model, seq_len).train)
    if tokens < seq_len:
        raise InputError(f"--flops: {flops:.3g} do not train this model on one sequence of {seq_len:,} tokens")
    return model, tokens, min(unique or tokens, tokens)


def _with_baseline(name: str, model: Any, flops: float, seq_len: int, unique: int | None) -> list[Any]:
    """A MoE design, fresh and with strict and loose reuse of data, and its dense baseline."""
    from moelab.errors import InputError
    from moelab.planning.baselines import equal_pair

    if model.moe is None:
        raise InputError(f"compare: {name} is dense; give a second design to compare it with")
    dense, strict = equal_pair(model, flops, seq_len, "strict")
    _, loose = equal_pair(model, flops, seq_len, "loose", dense[0])
    parts = [
        (name, (strict[0], strict[1], strict[1])),
        ("strict reuse", strict),
        ("loose reuse", loose),
        (DENSE, dense),
    ]
    if unique is None:
        return parts
    return [(label, (config, tokens, min(distinct, unique))) for label, (config, tokens, distinct) in parts]


def _print(result: "DesignComparison") -> None:
    from moelab.cli.output import print_line, print_table
    from moelab.quantities import format_bytes, format_number

    sides = result.sides
    rows: list[tuple[str, ...]] = [
        ("parameters", *(format_number(side.params_total, 4) for side in sides)),
        ("active", *(format_number(side.params_active, 4) for side in sides)),
        ("training FLOPs per token", *(format_number(side.flops_per_token, 4) for side in sides)),
        ("training FLOPs", *(format_number(side.train_flops, 3) for side in sides)),
        ("tokens", *(format_number(side.tokens) for side in sides)),
        ("unique tokens", *(format_number(side.unique_tokens) for side in sides)),
        ("epochs", *(f"{side.epochs:.2f}" for side in sides)),
        ("weights", *(format_bytes(side.weight_bytes) for side in sides)),
        ("KV cache of one context", *(format_bytes(side.kv_bytes) for side in sides)),
        ("training state", *(format_bytes(side.training_bytes) for side in sides)),
    ]
    if all(side.serving for side in sides):
        served = [side.serving or {} for side in sides]
        rows += [
            ("devices to serve", *(str(cost["gpus"]) for cost in served)),
            ("output tokens per second", *(format_number(cost["tokens_per_second"]) for cost in served)),
            ("$ per million tokens", *(f"{cost['cost_per_million_tokens']:.3g}" for cost in served)),
        ]
    for law in sides[0].loss:
        if any(side.loss[law].value is not None for side in sides):
            rows.append((f"loss, {law}", *(_loss(side.loss[law]) for side in sides)))
    print_table(["", *(side.name for side in sides)], rows)
    if any("*" in cell for row in rows if row[0].startswith("loss, ") for cell in row[1:]):
        print_line("* factor outside the range that the law was fitted on")
    for line in result.warnings:
        print_line(f"Warning: {line}")
    for side, gaps in zip(sides[1:], result.differences, strict=True):
        for law, gap in gaps.items():
            if gap["p_first_better"] is not None:
                print_line(
                    f"{law}: the loss of {side.name} minus that of {sides[0].name} is {gap['value']:+.4f} "
                    f"[{gap['low']:+.4f}, {gap['high']:+.4f}]; {sides[0].name} is better with probability "
                    f"{gap['p_first_better']:.0%}"
                )


def _loss(prediction: Any) -> str:
    if prediction.value is None:
        return "not covered"
    beyond = prediction.extrapolation or 0.0
    far = f" ({10**beyond:.2g}*)" if beyond >= 0.005 else ""
    if prediction.low is None:
        return f"{prediction.value:.3f}{far}"
    return f"{prediction.value:.3f} [{prediction.low:.3f}, {prediction.high:.3f}]{far}"
