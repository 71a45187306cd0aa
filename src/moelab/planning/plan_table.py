"""The table of a plan's candidates, for the terminal and for a notebook."""

from collections.abc import Callable, Sequence
from typing import Any

from moelab.planning.budget import COSTS
from moelab.planning.candidate import Candidate
from moelab.quantities import format_bytes, format_dollars, format_number

Cell = Callable[[Candidate], str]
EXCESS = ("excess", "excess cost")
"""Title of the column of excess compute, and of cost where a cost is minimised."""


EXCESS_COMPUTE = "excess compute"
"""Its title in figures."""


def candidate_table(
    candidates: Sequence[Candidate],
    best_dense: Candidate | None,
    objective: str,
    priced_training: bool,
    shares: bool = True,
) -> tuple[list[str], list[list[str]]]:
    """Columns and rows, as text: the ranked designs, then the best dense one where none of them is dense.

    With an `objective` of cost the excess is in dollars; `priced_training` adds what training costs. Without `shares`
    there is no excess: the laws do not support one.
    """
    shown = [(f"{rank}", design) for rank, design in enumerate(candidates, 1)]
    if best_dense is not None and all(design.is_moe for design in candidates):
        shown.append(("dense", best_dense))
    columns = _columns(candidates[0], objective, priced_training)
    if not shares:
        columns = {name: cell for name, cell in columns.items() if name not in EXCESS}
    return ["", *columns], [[rank, *(cell(design) for cell in columns.values())] for rank, design in shown]


def _columns(best: Candidate, objective: str, priced_training: bool) -> dict[str, Cell]:
    """Column title -> a function from a candidate to its cell."""
    columns: dict[str, Cell] = {
        "active/total": lambda c: f"{format_number(c.params_active)}/{format_number(c.params_total)}",
        "experts": lambda c: c.experts,
        "d_expert": lambda c: "-" if c.config.moe is None else f"{c.config.moe.d_expert}",
        "layers": layers_cell,
        "heads": lambda c: f"{c.config.n_heads}/{c.config.n_kv_heads}",
        "tokens": lambda c: format_number(c.tokens) + (f" ({c.epochs:.2g} ep)" if c.epochs > 1.001 else ""),
    }
    if best.mean_loss is not None:
        columns["loss, nats"] = lambda c: f"{c.mean_loss.value:.3f}{range_text(c.mean_loss)}" if c.mean_loss else "-"
    columns[EXCESS[objective in COSTS]] = lambda c: f"{c.regret_compute.value:.1%}{range_text(c.regret_compute, 100)}"
    if best.serving is None:
        columns["memory"] = lambda c: format_bytes(c.memory_bytes)
    if best.serving is not None and best.serving["cost_per_million_tokens"] is not None:
        columns["$/M tokens"] = lambda c: format_dollars(c.serving["cost_per_million_tokens"]) if c.serving else "-"
    if best.serving is not None:
        columns["GPUs"] = lambda c: f"{c.serving['gpus']}" if c.serving else "-"
    if best.cost is not None and best.cost["train"] is not None and priced_training:
        columns["training $"] = lambda c: format_dollars(c.cost["train"]) if c.cost else "-"
    if best.cost is not None and "lifetime" in best.cost:
        columns["lifetime $"] = lambda c: format_dollars(c.cost.get("lifetime")) if c.cost else "-"
    columns["LR"] = lambda c: f"{c.learning_rate:.1e}"
    return columns


def layers_cell(design: Candidate) -> str:
    """Layers by width: 46x7168; 1+45x7168 with a dense layer before the others; 24x2048 (12 MoE) where not all of the
    others are MoE."""
    config = design.config
    if not design.is_moe:
        return f"{config.n_layers}x{config.d_model}"
    dense = config.n_dense_layers
    layers = f"{dense}+{config.n_layers - dense}" if dense else f"{config.n_layers}"
    return f"{layers}x{config.d_model}" + ("" if config.moe_every == 1 else f" ({config.n_moe_layers} MoE)")


def layers_note(candidates: Sequence[Candidate]) -> str:
    """What a sum or a share in the column of layers is, by the first design that has one; empty where none has."""
    mixed = (each for each in candidates if each.is_moe and each.config.n_moe_layers < each.config.n_layers)
    design = next(mixed, None)
    if design is None:
        return ""
    config = design.config
    dense, rest = config.n_dense_layers, config.n_layers - config.n_dense_layers
    first = f"{dense} dense layer{'' if dense == 1 else 's'}, then " if dense else ""
    others = f"{rest} MoE layers" if config.moe_every == 1 else f"{rest} layers, {config.n_moe_layers} of them MoE"
    return f"Layers {layers_cell(design)}: {first}{others}, of width {config.d_model}."


def interval_note(candidates: Sequence[Candidate]) -> str:
    """What the brackets of the table hold; empty where no candidate has an interval."""
    if all(design.regret_compute.low is None for design in candidates):
        return ""
    return "In brackets: p10 and p90 of the draws, widened where they do not hold the value, which is the fit's own."


def range_text(interval: Any, scale: int = 1) -> str:
    """` [2.090, 2.120]`, in per cent with a `scale` of 100; nothing where p10 and p90 are not known."""
    if interval.low is None or interval.high is None:
        return ""
    if scale == 100:
        return f" [{interval.low:.1%}, {interval.high:.1%}]"
    return f" [{interval.low:.3f}, {interval.high:.3f}]"
