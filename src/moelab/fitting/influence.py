"""Which runs decide the optimum: what it would be without each of them, or without each group that belongs together."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from moelab.notebook import Shown, html_table
from moelab.quantities import format_flops

BEYOND = 10.0
"""The compute at which the optimum is taken, in units of the largest run's; size and data of a prediction grow so."""
LEAST = 1e-3
"""Relative change below which no run decides."""


@dataclass(frozen=True, kw_only=True)
class Left:
    """The fit without one run or group: its `label`, its first rows (from 1, of those fitted), the quantity without it,
    and the change relative to the fit of all runs. `refitted` is False for an estimate.
    """

    label: str
    rows: tuple[int, ...]
    n_runs: int
    value: float
    change_rel: float
    refitted: bool


@dataclass(frozen=True, kw_only=True, repr=False)
class Influence(Shown):
    """What decides `quantity`, an optimal size at `flops` or (flops None) a prediction at `design`: the runs that move
    it most, in that order. `half_width_rel` is half the quantity's 80 % interval, relative."""

    quantity: str
    flops: float | None
    design: dict[str, float]
    value: float
    half_width_rel: float | None
    left: tuple[Left, ...]

    @property
    def title(self) -> str:
        """What is moved, for people."""
        if self.flops is None:
            return f"{self.quantity} at {BEYOND:g} times the largest run's size and data"
        return f"best {self.quantity} at {format_flops(self.flops)} FLOPs"

    def to_dict(self) -> dict[str, Any]:
        """Plain data: an entry of a fit's JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> "Influence":
        """The inverse of `to_dict`."""
        left = tuple(Left(**{**each, "rows": tuple(each["rows"])}) for each in value["left"])
        return cls(**{**value, "left": left})

    def note(self) -> list[str]:
        """Where one run, or group, moves the quantity by more than its interval's half-width."""
        worst = self.left[0] if self.left else None
        if worst is None or self.half_width_rel is None or not abs(worst.change_rel) > self.half_width_rel > 0:
            return []
        if abs(worst.change_rel) < LEAST:
            return []
        which = f"row {worst.rows[0]}" if worst.n_runs == 1 else f"{worst.n_runs} rows of {worst.label}"
        return [
            f"without {which} the {self.title} moves by {worst.change_rel:+.1%}, more than half its 80 % interval "
            f"(+-{self.half_width_rel:.1%}): it decides"
        ]

    def rows(self) -> list[tuple[str, int, float, str]]:
        """Per run or group left out: its label, how many rows, the quantity without it, and the change."""
        return [(each.label, each.n_runs, each.value, f"{each.change_rel:+.1%}") for each in self.left]

    def _repr_html_(self) -> str:
        return html_table(["without", "runs", self.quantity, "change"], self.rows(), title=self.title)
