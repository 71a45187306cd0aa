"""A grid of runs, like compared with like: along each axis that was varied, at equal tokens or equal FLOPs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from moelab.experiments.grid import RunGrid
from moelab.quantities import format_flops, format_number
from moelab.report import Section, Table
from moelab.studies.findings.base import Evidence, Finding, diverged_warning
from moelab.studies.seeds import Design

EQUAL = 0.03
"""Relative difference within which FLOPs are equal: runs are whole steps, shapes are whole numbers."""
SAME_SIZE = 0.15
"""Relative difference of active parameters within which designs at equal tokens are compared: beyond it, the larger
one wins by its compute."""


@dataclass(frozen=True)
class Compared:
    """Designs that differ along one axis alone: what they have equal, and the best of them."""

    axis: str
    others: str
    designs: list[Design]
    equal: str

    @property
    def best(self) -> Design:
        """The design with the lowest loss."""
        return min(self.designs, key=lambda design: design.loss)


def grid_finding(found: Evidence) -> Finding | None:
    """The winner along each axis, per group; None where no two designs can be compared."""
    assert isinstance(found.experiment, RunGrid)
    groups = [group for axis in axes(found.experiment) for group in compared(found, axis)]
    if not groups:
        return None
    rows, sentences, data = [], [], []
    for group in groups:
        winner, judged = _winner(found, group)
        losses = ", ".join(f"{value_at(design, group.axis)}: {design.loss:.3f}" for design in group.designs)
        rows.append([group.axis, group.others or "–", group.equal, losses, winner or "not decided"])
        best = value_at(group.best, group.axis)
        ahead = f"{group.axis} {best} is ahead" if winner else f"{group.axis} is not decided"
        sentences.append(f"At {group.equal}{', ' + group.others if group.others else ''}, {ahead}: {judged}.")
        data.append({"axis": group.axis, "others": group.others, "equal": group.equal, "winner": winner})
    planned = found.study.plan is not None
    section = Section(
        f"Grid: {found.experiment.name}",
        text=[
            "Designs that differ along one axis alone are compared where they had equal tokens at equal active size, "
            "or equal FLOPs. A winner is named where its margin exceeds what seeds explain.",
            *(sentences if planned else []),
        ],
        tables=[Table(["axis", "held at", "at equal", "loss by value, nats", "winner"], rows)],
        warnings=diverged_warning(found),
    )
    return Finding(
        name=found.experiment.name, sentences=[] if planned else sentences, section=section, data={"groups": data}
    )


def axes(grid: RunGrid) -> list[tuple[str, ...]]:
    """The fields that vary: each list of `set` by itself, those of `zip` together."""
    own = [(name,) for name, value in grid.set.items() if isinstance(value, list) and len(value) > 1]
    zipped = tuple(name for name, values in grid.zip.items() if len(values) > 1)
    return [*own, *([zipped] if zipped else [])]


def compared(found: Evidence, axis: Sequence[str]) -> list[Compared]:
    """The groups of designs that are equal but for `axis`, as far as they can be compared."""
    assert isinstance(found.experiment, RunGrid)
    others = [name for each in axes(found.experiment) for name in each if name not in axis]
    groups = []
    for key, designs in found.by(lambda design: tuple(value_at(design, name) for name in others)).items():
        equal = equal_in(designs)
        values = {value_at(design, axis[0]) for design in designs}
        if len(values) > 1 and len(values) == len(designs) and equal:
            named = ", ".join(f"{name.split('.')[-1]} {value}" for name, value in zip(others, key, strict=True))
            groups.append(Compared(axis[0], named, designs, equal))
    return groups


def equal_in(designs: Sequence[Design]) -> str:
    """What designs have equal, as text: FLOPs, or tokens at equal active size; empty where they cannot be compared."""
    records = [design.record for design in designs]
    if _spread([record.train_flops for record in records]) <= EQUAL:
        return f"{format_flops(records[0].train_flops)} FLOPs"
    same_size = _spread([float(record.params_active) for record in records]) <= SAME_SIZE
    if same_size and _spread([float(record.tokens) for record in records]) <= EQUAL:
        return f"{format_number(records[0].tokens)} tokens"
    return ""


def value_at(design: Design, axis: str) -> str:
    """The value of a dotted field of a design's config, as text; a MoE as experts and choices."""
    value: Any = design.config.to_dict()
    for part in axis.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    if isinstance(value, dict) and "n_experts" in value:
        shared = f"+{value['n_shared_experts']}" if value.get("n_shared_experts") else ""
        return f"{value['n_experts']} top-{value.get('top_k', 1)}{shared}"
    if value is None:
        return "dense" if axis.split(".")[-1] == "moe" else "none"
    return format_number(value) if isinstance(value, int) and value >= 10_000 else str(value)


def _winner(found: Evidence, group: Compared) -> tuple[str | None, str]:
    """The best value if its margin over the next exceeds the noise, and the margin as text."""
    first, second = sorted(group.designs, key=lambda design: design.loss)[:2]
    noise, margin = found.noise, second.loss - first.loss
    decided = noise is not None and margin > noise.bound(first.seeds, second.seeds, 0.95)
    return (value_at(first, group.axis) if decided else None), found.judged(first, second)


def _spread(values: Sequence[float]) -> float:
    return max(values) / min(values) - 1
