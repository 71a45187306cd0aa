"""What ails a run that has ended, in sentences with numbers: notes of its record, not errors.

Layers are MoE layers counted from 0, as in the routing record. Routing is that of the last evaluation.
"""

import math
from collections.abc import Sequence
from typing import Any

from torch import nn

from moelab.runs import RunConfig
from moelab.training.progress import Progress

GUESSING = 0.995
"""A loss above this share of ln V is that of guessing."""
FEW = 0.9
"""A layer has collapsed where top_k experts, or a quarter of all, take this share of its choices."""
DROPPED = 0.5
GREW = 20.0
"""Times that gradients grow from the first steps to the last before it is noted, where they are above `LARGE_NORM`."""
LARGE_NORM = 10.0
LARGE_WEIGHTS, LARGE_GAINS = 5.0, 20.0
"""Root mean squares: sound matrices stay below 1 or 2, norms' gains below 5."""
IDLE = 0.01
"""Share of expert steps, noted where the lower end of its 95 % interval lies above: few steps decide nothing."""
_SHOWN = 4


def health_notes(config: RunConfig, progress: Progress, model: nn.Module) -> list[str]:
    """One sentence for each thing that is wrong; none for a sound run."""
    last = progress.evaluation or {}
    loads, rows = last.get("expert_load", []), last.get("routing", [])
    checks = (
        _no_learning(config, progress),
        _dead(loads),
        _collapsed(config, loads),
        _dropped(config, rows),
        _growing(progress),
        _large(model),
        _idle(progress),
    )
    return [note for note in checks if note]


def _no_learning(config: RunConfig, progress: Progress) -> str:
    losses, guessing = [row["loss"] for row in progress.curve], math.log(config.model.vocab_size)
    if not losses or min(losses) <= GUESSING * guessing:
        return ""
    each = "1 evaluation" if len(losses) == 1 else f"{len(losses)} evaluations"
    return (
        f"no learning: the lowest loss of {each} is {min(losses):.3f} nats per token, and guessing uniformly gives "
        f"ln {config.model.vocab_size:,} = {guessing:.3f}"
    )


def _dead(loads: Sequence[Sequence[float]]) -> str:
    dead = {layer: sum(share == 0 for share in load) for layer, load in enumerate(loads)}
    found = [f"{count} of {len(loads[layer])} in MoE layer {layer}" for layer, count in dead.items() if count]
    return f"dead experts took no token of the last evaluation: {_listed(found)}" if found else ""


def _collapsed(config: RunConfig, loads: Sequence[Sequence[float]]) -> str:
    moe = config.final_model.moe
    if moe is None or moe.top_k == moe.n_experts:
        return ""
    found = []
    for layer, load in enumerate(loads):
        few = max(moe.top_k, len(load) // 4)
        share = sum(sorted(load, reverse=True)[:few])
        if share >= FEW:
            found.append(f"{few} of {len(load)} experts take {_percent(share)} of the choices in MoE layer {layer}")
    return f"the load is on few experts: {_listed(found)}" if found else ""


def _dropped(config: RunConfig, rows: Sequence[dict[str, Any]]) -> str:
    moe = config.final_model.moe
    found = [
        f"{_percent(row['drop_rate'])} in MoE layer {layer}"
        for layer, row in enumerate(rows)
        if row.get("drop_rate", 0) >= DROPPED
    ]
    if not found or moe is None:
        return ""
    if moe.capacity_factor is None:
        return f"most tokens are read by no expert: {_listed(found)}"
    return f"most choices are dropped at capacity_factor {moe.capacity_factor:g}: {_listed(found)}"


def _percent(share: float) -> str:
    """Rounded down from 99 % on: 100 % is all of them."""
    return f"{share:.0%}" if share < 0.99 or share == 1 else f"{math.floor(share * 1000) / 10:g}%"


def _growing(progress: Progress) -> str:
    first, last = _mean(progress.first_norms), _mean(progress.recent_norms)
    if last <= max(GREW * first, LARGE_NORM):
        return ""
    return (
        f"gradient norms exploded: their mean before clipping is {first:.3g} over the first "
        f"{len(progress.first_norms)} steps and {last:.3g} over the last {len(progress.recent_norms)}"
    )


def _large(model: nn.Module) -> str:
    found = []
    for name, parameter in model.named_parameters():
        size = float(parameter.detach().square().mean().sqrt())
        if not size <= (LARGE_WEIGHTS if parameter.ndim >= 2 else LARGE_GAINS):
            found.append((size, name))
    if not found:
        return ""
    size, name = max(found)
    limits = f"above {LARGE_WEIGHTS:g} (matrices) or {LARGE_GAINS:g} (vectors)"
    others = f", and {len(found) - 1} more are {limits}" if len(found) > 1 else ""
    return f"weights exploded: the root mean square of {name} is {size:.3g}{others}"


def _idle(progress: Progress) -> str:
    share = progress.idle_expert_steps / max(progress.expert_steps, 1)
    if _at_least(progress.idle_expert_steps, progress.expert_steps) <= IDLE:
        return ""
    return (
        f"Muon moved experts that had no token in the batch, by old momentum at full size: {share:.1%} of "
        f"{progress.expert_steps:,} expert steps"
    )


def _at_least(count: int, of: int, z: float = 1.645) -> float:
    """The lower end of Wilson's interval for a share (one-sided, 95 %); 0 for a share of nothing."""
    if not of:
        return 0.0
    share, spread = count / of, z * z / of
    return (share + spread / 2 - math.sqrt(spread * (share * (1 - share) + spread / 4))) / (1 + spread)


def _listed(found: Sequence[str]) -> str:
    more = f", and {len(found) - _SHOWN} more layers" if len(found) > _SHOWN else ""
    return ", ".join(found[:_SHOWN]) + more


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
