"""Where a run stands, besides its tensors: what a checkpoint keeps of its losses, norms and notes."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(kw_only=True)
class Progress:
    """Where a run stands, besides its tensors.

    `run_id` names the run and `kernels` what computed it, both empty in checkpoints of 0.1. `started` is when the run
    began, empty where another version began it. `spikes` are the steps whose loss jumped; `evaluation` the last one;
    `notes` what people should know of the run. Gradient norms are those before clipping; `idle_expert_steps` counts
    Muon's steps on experts without a token, of all `expert_steps`.
    """

    run_id: str = ""
    kernels: str = ""
    step: int = 0
    seconds: float = 0.0
    started: str = ""
    resumed: int = 0
    recent_losses: list[float] = field(default_factory=list)
    curve: list[dict[str, float]] = field(default_factory=list)
    spikes: list[int] = field(default_factory=list)
    first_norms: list[float] = field(default_factory=list)
    recent_norms: list[float] = field(default_factory=list)
    expert_steps: int = 0
    idle_expert_steps: int = 0
    evaluation: dict[str, Any] | None = None
    notes: list[str] = field(default_factory=list)
