"""Compares designs: parameters, FLOPs, tokens, epochs, memory, serving, and the loss predicted by each law."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from moelab.architecture import ModelConfig, count_flops, count_parameters
from moelab.architecture.memory import kv_bytes, training_memory, weight_bytes
from moelab.errors import InputError
from moelab.laws import Design
from moelab.planning.baselines import Part
from moelab.planning.budget import Serving
from moelab.planning.candidate import Candidate
from moelab.planning.chosen_laws import laws_of
from moelab.planning.compare_losses import loss_differences, loss_prediction, loss_warnings
from moelab.planning.compare_serving import served_sides, wanted_serving
from moelab.planning.fit_notes import compared_fits
from moelab.planning.given_laws import predictors_of
from moelab.planning.matched import COMPARES_LAWS, derived_parts, equal_loss_parts, given_parts, named_model
from moelab.planning.predictors import Predictor
from moelab.planning.sides import DesignComparison, Side
from moelab.quantities import (
    MOST_CONTEXT,
    MOST_FLOPS,
    MOST_TOKENS,
    check_at_most,
    format_number,
    parse_count,
    parse_number,
)
from moelab.runs import RunConfig

EQUAL = ("params", "flops", "tokens", "unique_tokens")
"""Quantities that `check_equal` compares."""

LOSS = "loss"
"""Of one design: set it beside the dense model that reaches its loss on its tokens."""


def compare(
    *designs: str | Path | ModelConfig | RunConfig | Candidate,
    flops: float | str = 1e21,
    unique_tokens: float | str | None = None,
    equal: Sequence[str] = (),
    seq_len: int | str = 4096,
    hardware: str | None = None,
    precision: str = "bf16",
    kv_precision: str = "bf16",
    prompt: int | str | None = None,
    output: int | str | None = None,
    tpot: float | str | None = None,
    ttft: float | str | None = None,
    gpus: int | str | None = None,
    gpu_price: float | str | None = None,
    laws: Any = None,
    extrapolate: bool = False,
    causal: bool = False,
    **others: Any,
) -> DesignComparison:
    """Put designs side by side at equal compute, as `moelab compare` does.

    Args:
        designs: Each a ModelConfig, a RunConfig, a planned Candidate, a model or run YAML, a run (folder, start of its
            id, name) or a preset. One MoE design alone is set beside its dense baseline of equal parameters and FLOPs,
            itself with only that baseline's tokens (strict reuse), and with two epochs (loose): arXiv 2506.12119.
        flops: Training FLOPs of each design (1e21, "1e21").
        unique_tokens: Distinct tokens there are for each design; None: as many as it processes.
        equal: Of params, flops, tokens, unique_tokens: refuse designs that differ in them by more than 1 %. For one
            design alone, unique_tokens keeps the strict pair; `loss` sets it beside the dense model that reaches its
            loss on its tokens, of the median size by the laws that compare the two.
        seq_len: Context in tokens at which FLOPs and the KV cache are counted.
        hardware: Devices that serve (h100, ..., or a YAML); None leaves serving out.
        precision: Of the served weights: bf16, fp8, int4, mxfp4 (experts alone), nvfp4.
        kv_precision: Of the KV cache.
        prompt: Tokens of a prompt; None: 1,024.
        output: Tokens of an answer; None: 256.
        tpot: Limit on the time per output token, in seconds or as "50ms".
        ttft: Limit on the time to the first token.
        gpus: Devices to serve on; None: the cheapest power of two.
        gpu_price: US dollars per device and hour; None: the catalogue's.
        laws: Laws, ids, fitted laws, fit files or "all"; None: all published laws.
        extrapolate: Use laws outside their range of experts and sparsity.
        causal: Count the causal half of the attention scores in FLOPs, not the full square. Laws read FLOPs in their
            own conventions either way.
        others: Arguments that it does not have, each refused in one line.

    Returns:
        A DesignComparison: `sides` with parameters, FLOPs, tokens, bytes, serving (seconds, US dollars) and loss
        (nats per token) under each law; `differences` from the first; `warnings`.

    Raises:
        InputError: A design, quantity, device or law that is not known, designs that differ in `equal`, or a table of
            runs (laws are compared by `moelab.compare_laws`).

    >>> import moelab
    >>> result = moelab.compare("olmoe-1b-7b", flops=1e22, equal=["params", "flops", "unique_tokens"])
    >>> [side.name for side in result.sides]
    ['strict reuse', 'dense baseline']
    >>> result.sides[0].unique_tokens == result.sides[1].tokens
    True
    """
    if not designs:
        raise InputError("compare: needs a design: a ModelConfig, a YAML, a run or a preset")
    if others:
        raise InputError(f"compare: has no argument {next(iter(others))!r}; {COMPARES_LAWS}")
    models = [named_model(design, number) for number, design in enumerate(designs, 1)]
    equal = (equal,) if isinstance(equal, str) else equal
    unknown = [name for name in equal if name not in (*EQUAL, LOSS)]
    if unknown:
        raise InputError(f"equal: no such quantity {unknown[0]!r}; known: {', '.join((*EQUAL, LOSS))}")
    budget, context = parse_number(flops, "flops"), parse_count(seq_len, "seq_len")
    check_at_most(budget, MOST_FLOPS, "flops")
    check_at_most(context, MOST_CONTEXT, "seq_len")
    unique = None if unique_tokens is None else parse_count(unique_tokens, "unique_tokens")
    if unique is not None:
        check_at_most(unique, MOST_TOKENS, "unique_tokens")
    sizes = None
    if LOSS in equal:
        predictors = predictors_of(laws_of(laws), extrapolate=extrapolate)
        parts, sizes = equal_loss_parts(models, budget, context, unique, predictors, causal)
    elif len(models) == 1:
        parts = derived_parts(*models[0], budget, context, unique, "unique_tokens" in equal, causal)
    else:
        parts = given_parts(models, budget, context, unique, causal)
    given = {"prompt": prompt, "output": output, "tpot": tpot, "ttft": ttft, "gpus": gpus}
    traffic = {name: value for name, value in given.items() if value is not None}
    serving = wanted_serving(hardware, gpu_price, traffic, precision, kv_precision)
    result = compare_designs(
        parts,
        laws_of(laws),
        seq_len=context,
        serving=serving,
        precision=precision,
        kv_precision=kv_precision,
        extrapolate=extrapolate,
        causal=causal,
    )
    check_equal(result.sides, [name for name in equal if name != LOSS], given=len(models))
    return result if sizes is None else replace(result, equal_loss_params=sizes)


def compare_designs(
    parts: Sequence[tuple[str, Part]],
    laws: Sequence[Any],
    *,
    seq_len: int = 4096,
    serving: Serving | None = None,
    precision: str = "bf16",
    kv_precision: str = "bf16",
    extrapolate: bool = False,
    causal: bool = False,
) -> DesignComparison:
    """Compare named designs, each with its tokens and unique tokens, under every law.

    Raises InputError where no design can be served within the limits.
    """
    predictors = predictors_of(laws, extrapolate=extrapolate)
    designs = [Design.of(model, tokens, seq_len, min(unique, tokens)) for _, (model, tokens, unique) in parts]
    served, notes = ({}, []) if serving is None else served_sides(parts, serving)
    sides = [
        _side(name, part, design, predictors, seq_len, served.get(name), (precision, kv_precision), causal)
        for (name, part), design in zip(parts, designs, strict=True)
    ]
    differences = [loss_differences(designs[0], other, predictors) for other in designs[1:]]
    return DesignComparison(
        sides=sides,
        differences=differences,
        warnings=loss_warnings(sides, predictors) + compared_fits(sides, predictors) + notes,
        causal=causal,
        traffic=None if serving is None else serving.traffic.words,
    )


def _side(
    name: str,
    part: Part,
    design: Design,
    predictors: Sequence[Predictor],
    seq_len: int,
    served: dict[str, Any] | None,
    precisions: tuple[str, str],
    causal: bool,
) -> Side:
    """One design; `precisions` are those of weights and KV cache."""
    model, tokens, unique = part
    params, flops = count_parameters(model), count_flops(model, seq_len, causal=causal).train
    return Side(
        name=name,
        config=model,
        params_total=params.params_total,
        params_active=params.params_active,
        activation_rate=params.activation_rate,
        tokens=tokens,
        unique_tokens=min(unique, tokens),
        epochs=tokens / min(unique, tokens),
        flops_per_token=flops,
        train_flops=float(flops) * tokens,
        weight_bytes=weight_bytes(model, precisions[0]),
        kv_bytes=kv_bytes(model, seq_len, precisions[1]),
        training_bytes=training_memory(model).total,
        serving=served,
        loss={predictor.id: loss_prediction(predictor, design) for predictor in predictors},
    )


def check_equal(sides: Sequence[Side], wanted: Sequence[str], tolerance: float = 0.01, given: int = 2) -> None:
    """Raises InputError naming the first of the wanted quantities in which the designs differ by more than 1 %.

    `given` is the number of designs that the user named; the others were derived.
    """
    hint = (
        "leave it out, or give one design to get a dense baseline of equal size"
        if given > 1
        else "leave it out; the dense baseline of one design can equal it in params, flops and unique_tokens"
    )
    columns: dict[str, list[float]] = {
        "params": [side.params_total for side in sides],
        "flops": [side.train_flops for side in sides],
        "tokens": [side.tokens for side in sides],
        "unique_tokens": [side.unique_tokens for side in sides],
    }
    for name in wanted:
        low, high = min(columns[name]), max(columns[name])
        if high > low * (1 + tolerance):
            raise InputError(
                f"equal {name}: the designs differ, {format_number(low, 4)} against {format_number(high, 4)}; {hint}"
            )
