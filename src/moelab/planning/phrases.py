"""Parts of a plan's sentences: the kind of a design, how it trains, the limits of a budget."""

import re
from collections.abc import Sequence
from typing import Any

from moelab.architecture.memory import weights_precision
from moelab.planning.candidate import Candidate
from moelab.planning.space import Space
from moelab.quantities import format_bytes, format_dollars, format_number

LIMIT_NAMES = {
    "compute": "compute",
    "data": "data",
    "tokens": "the limit on tokens",
    "params": "the limit on parameters",
    "active": "the limit on active parameters",
    "memory": "memory",
    "tokens_per_active": "the minimum of tokens per active parameter",
    "most_tokens_per_active": "the maximum of tokens per active parameter",
    "tokens_per_total": "the minimum of tokens per parameter",
    "serving": "the limits on serving",
    "serving_memory": "the memory of the serving devices",
    "within": "the excess of compute that is allowed for a lower lifetime cost",
}
"""The limits of a budget in words, by their names in `binding`."""

LEAST_GAIN = 0.0005
"""Gains of a limit that round to nothing are left out."""


def paragraphs(sentence: str) -> list[str]:
    """A plan's `sentence` in paragraphs: any doubt, the recommendation by itself, then the rest."""
    parts = re.split(r"(?<=\.) (?=[A-Z0-9])", sentence)
    first = next((i for i, part in enumerate(parts) if part.startswith("Train ")), 0)
    return [*parts[: first + 1], *([" ".join(parts[first + 1 :])] if parts[first + 1 :] else [])]


def as_sentence(line: str) -> str:
    """A warning's line as a sentence."""
    return f"{line[0].upper()}{line[1:]}."


def saved_by_limits(gains: dict[str, dict[str, Any]], shares: bool = True) -> list[tuple[str, str]]:
    """By limit, what 10 % more of it saves, in words, from `Plan.sensitivity`; large gains are capped.

    Gains that round to nothing are left out, and all of them without `shares`, where no law supports the plan. More
    compute is no saving of compute.
    """
    lines = []
    for name, gain in gains.items():
        saving = gain.get("gain_cost", gain.get("gain_compute"))
        if not shares or saving is None or saving < LEAST_GAIN:
            continue
        if "gain_cost" in gain:
            lines.append((name, f"{saving:.1%} of the cost"))
        elif "gain_balance" in gain:
            lines.append((name, f"as much as {gain['gain_balance']:.1%} of the lifetime cost at the same loss"))
        elif name != "compute":
            much = "more than twice the" if saving > 1 else f"{saving:.1%}"
            lines.append((name, f"as much loss as {much} compute"))
    return lines


def training_sentence(training: dict[str, Any], assumed: str | None = None) -> str:
    """How the recommended design trains: MFU in a named convention, where it comes from, and what it takes.

    `assumed` is the kind of device that serves, where the budget names none that trains.
    """
    if assumed is not None:
        many = "" if training["gpus"] is None else f"{training['gpus']:,} "
        return (
            f"{training_sentence(training)} Training on {many}{assumed} devices is an assumption, because that "
            "kind serves; --train-hardware names another."
        )
    scores = "causal attention scores" if training["mfu_convention"] == "causal" else "the full square of scores"
    spent = f"{format_number(training['device_hours'])} device-hours"
    if training["dollars"] is not None:
        spent += f", {format_dollars(training['dollars'])}"
    own = "" if training["precision"] == "bf16" else f", {training['mfu_own']:.0%} of the {training['precision']} peak"
    if not training["predicted"]:
        return f"At the given MFU of {training['mfu']:.0%} of the bf16 peak{own} ({scores}) that is {spent}."
    known, gpus = training["calibration"], f"{training['gpus']:,} devices"
    if training["gpus_used"] < training["gpus"]:
        gpus = f"{training['gpus_used']:,} of {gpus} (the others idle)"
    return (
        f"The predicted MFU is {training['mfu']:.0%} ({training['mfu_low']:.0%} to {training['mfu_high']:.0%}) of the "
        f"bf16 peak{own}, {scores}, on {gpus} with {training['layout']}: {spent}, "
        f"{training['days']:#.3g} days ({training['days_low']:#.3g} to {training['days_high']:#.3g}; calibration "
        f"{known['id']}, error {known['error']:.0%} on measured layouts with {left_out(known['held_out_by'])} left out"
        f"{no_rows(known['without_rows'])})."
    )


def compute_sentence(best: Candidate, causal: float, precision: str, context: int) -> str:
    """The design's training FLOPs (`causal`: with the causal half of the scores) and its memory with a KV cache of
    `context` tokens; and, where the printed numbers differ, why its losses are of fewer tokens than it trains on."""
    counted = format_number(best.loss_tokens)
    credit = (
        f"; losses are of {counted} tokens, because the FLOPs that its attention scores save against full attention "
        "in practice's shape buy no tokens"
    )
    stored = weights_precision(best.config, precision)
    return (
        f"Training takes {format_number(best.train_flops)} FLOPs (attention as the full square; "
        f"{format_number(causal)} causal); weights in {stored} and the KV cache of one sequence of {context:,} "
        f"tokens take {format_bytes(best.memory_bytes)}{credit if counted != format_number(best.tokens) else ''}."
    )


def left_out(names: str) -> str:
    """What was held out, in the plural: "model and precision" gives models and precisions."""
    return " and ".join("devices" if name == "hardware" else f"{name}s" for name in names.split(" and "))


def no_rows(words: Sequence[str]) -> str:
    """The end of a sentence about a calibration: what it has no rows with; empty where it has all."""
    return f"; no rows with {', '.join(words)}" if words else ""


def binding_sentence(binding: list[str]) -> list[str]:
    """The limits of the budget among the names in `binding`, as a sentence; none where none of them binds."""
    limits = [LIMIT_NAMES[name] for name in binding if name in LIMIT_NAMES]
    if not limits:
        return []
    listed = " and ".join([", ".join(limits[:-1]), limits[-1]] if limits[1:] else limits)
    return [f"Binding {'limits' if limits[1:] else 'limit'}: {listed}."]


def searched_sentence(within: int, searched: int, space: Space) -> str:
    """How many designs were searched, their vocabulary, and what sets it where no model does."""
    setter = "" if space.template is not None else " (vocab_size in --space sets it)"
    return (
        f"It is chosen among {within:,} designs within the limits ({searched:,} searched), all with a vocabulary of "
        f"{space.vocab_size:,}{setter}."
    )


def train_words(best: Candidate) -> str:
    """The kind of a design with its size and experts, its layers, and its tokens."""
    config, tokens = best.config, f"{format_number(best.tokens)} tokens"
    dense = config.n_dense_layers if best.is_moe else 0
    first = "" if not dense else ", the first dense" if dense == 1 else f", the first {dense} dense"
    if best.is_moe and config.moe_every > 1:
        first += f", {config.n_moe_layers} of them MoE"
    repeats = f" ({best.epochs:.2g} epochs)" if best.epochs > 1.001 else ""
    return f"{_kind(best)} ({config.n_layers} layers of width {config.d_model}{first}) on {tokens}{repeats}"


def _kind(best: Candidate) -> str:
    total, moe = format_number(best.params_total), best.config.moe
    if moe is None:
        return f"a dense model of {total} parameters"
    shared = f" and {moe.n_shared_experts} shared" if moe.n_shared_experts else ""
    active = format_number(best.params_active)
    return f"a MoE model of {total} parameters, {active} active, with {moe.n_experts} experts, top-{moe.top_k}{shared}"
