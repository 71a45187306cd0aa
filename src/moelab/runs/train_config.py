"""How one run is trained: tokens, batches, optimiser and schedule, and what the machine adds."""

import math
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from moelab.config import Config, Context, Count, CountOrZero, Fraction, NonNegative, Positive, TokenCount

AUTO = "auto"
"""The value of a field that is still to be decided on the machine."""
MACHINE = ("device", "precision", "threads", "dispatch", "kernels", "processes", "parallel")
"""Training fields that follow the machine, not the science: numbers differ by rounding alone."""


class Transition(Config):
    """From this share of the steps on, a Mixture of Tokens model is token choice with the same weights (2310.15961)."""

    at: Fraction = Field(gt=0, lt=1)
    to: Literal["token_choice"] = "token_choice"


class Parallel(Config):
    """A mesh of `data` x `expert` processes that train one model, each holding a share of it (FSDP2).

    Experts are shared out over `expert` neighbouring ranks and their rows sent there; everything is further sharded
    over the rest.
    """

    data: Count = Field(default=1, le=4096, description="processes that share out the rows of every expert and batch")
    expert: Count = Field(default=1, le=4096, description="processes that share out the experts of a layer")

    @property
    def processes(self) -> int:
        """Processes of the mesh."""
        return self.data * self.expert

    def __str__(self) -> str:
        return f"{self.data} x {self.expert}"


class TrainConfig(Config):
    """How one run is trained. `auto` values are resolved once, before the run is named.

    `tokens` is rounded down to whole optimiser steps of `batch_tokens`. With `muon`, hidden matrices (each expert by
    itself) are orthogonalised and their step is scaled to AdamW's size, so one `learning_rate` serves both.
    `decay_fraction` is the share of steps in which `wsd` decays; `final_lr_fraction` the rate at the end;
    `warmup_steps` and `decay_steps` are the same in steps and stand above the fractions.
    `balance_over` is what the balance loss is formed over: the whole optimiser batch however it is cut, each sequence,
    or each forward pass. `mtp_loss` weighs multi-token prediction; None: DeepSeek-V3's 0.3 (arXiv 2412.19437).
    `processes` train as one, each on its share of every batch and with a whole model; with `parallel` they are a mesh
    over which the model is sharded, and `processes` is its size.
    `keep_checkpoints` is how many of the newest stay while the run trains; those after `keep_steps` stay for good.
    A resolved config without `kernels` is one of 0.1, which took what the machine had; without `muon_split` Muon takes
    gate and up projections as the one matrix they are stored as, as 0.1 did.
    Before the first step the data's files are hashed: where they `changed` since that was last done, or `always`.
    """

    tokens: TokenCount
    seq_len: Context
    batch_tokens: TokenCount
    micro_batch: Count | None = Field(default=None, description="sequences per forward pass; default: the whole batch")
    seed: CountOrZero = 0
    optimizer: Literal["adamw", "muon"] = "adamw"
    learning_rate: Positive = 3e-3
    schedule: Literal["cosine", "wsd", "constant"] = "cosine"
    warmup_fraction: Fraction = 0.02
    decay_fraction: Fraction = 0.2
    final_lr_fraction: Fraction = 0.1
    warmup_steps: CountOrZero | None = Field(default=None, le=10**18)
    decay_steps: CountOrZero | None = Field(default=None, le=10**18)
    weight_decay: NonNegative = Field(default=0.1, le=1000)
    weight_decay_on: Literal["matrices", "hidden", "all"] = Field(
        default="matrices", description="matrices; those without embeddings, head and routers; or norms and biases too"
    )
    beta1: Fraction = Field(default=0.9, lt=1)
    beta2: Fraction = Field(default=0.95, lt=1)
    epsilon: Positive = Field(default=1e-8, le=1)
    muon_momentum: Fraction = Field(default=0.95, lt=1)
    muon_split: bool | None = Field(
        default=None, description="whether the gate's and the up projection's half are matrices of their own"
    )
    grad_clip: NonNegative = 1.0
    logit_z_loss: NonNegative = Field(default=0.0, le=1000)
    mtp_loss: NonNegative | None = Field(default=None, le=1000)
    balance_over: Literal["batch", "sequence", "micro_batch"] = "batch"
    transition: Transition | None = None
    evaluations: Count = Field(default=4, le=10**6, description="at most one per step, the last at the run's end")
    eval_tokens: TokenCount = 100_000
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    threads: CountOrZero = Field(default=0, le=1024, description="CPU threads; 0 lets the machine decide")
    dispatch: str = AUTO
    kernels: Literal["auto", "native", "torch"] = Field(
        default="auto", description="what computes fp32 on a CPU: the compiled kernels or PyTorch's"
    )
    compile: Literal["none", "blocks"] = Field(default="none", description="torch.compile of every layer")
    recompute: Literal["selective", "full"] | None = Field(
        default=None, description="what backward passes compute again: all but products and routes, or all but routes"
    )
    processes: Count = Field(default=1, le=4096, description="data-parallel processes")
    parallel: Parallel | None = Field(default=None, description="a mesh over which the model is sharded")
    keep_checkpoints: Count = 2
    keep_steps: tuple[TokenCount, ...] = ()
    verify_data: Literal["changed", "always"] = "changed"

    @model_validator(mode="before")
    @classmethod
    def _count_processes(cls, data: Any) -> Any:
        """`processes` of a mesh is its size, unless it was given; what is wrong with the mesh its own field reports."""
        mesh = data.get("parallel") if isinstance(data, dict) else None
        if mesh is None or "processes" in data:
            return data
        try:
            return {**data, "processes": Parallel.model_validate(mesh).processes}
        except ValueError:
            return data

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.parallel is not None and self.processes != self.parallel.processes:
            raise ValueError(
                f"processes: must be the {self.parallel.processes} of parallel (data x expert), got {self.processes}; "
                "leave it out"
            )
        if self.batch_tokens % self.seq_len:
            raise ValueError(f"batch_tokens: must be a multiple of seq_len ({self.seq_len}), got {self.batch_tokens}")
        if self.tokens < self.batch_tokens:
            raise ValueError(f"tokens: must hold at least one batch ({self.batch_tokens}), got {self.tokens}")
        if self.eval_tokens < self.seq_len:
            raise ValueError(f"eval_tokens: must be at least seq_len ({self.seq_len}), got {self.eval_tokens}")
        if self.batch_size % self.processes:
            many = "processes" if self.parallel is None else "parallel: data x expert"
            raise ValueError(f"{many}: must divide the {self.batch_size} sequences of a batch, got {self.processes}")
        if self.micro_batch is not None and self.local_batch_size % self.micro_batch:
            each = " of each process" if self.processes > 1 else " of a batch"
            raise ValueError(f"micro_batch: must divide the {self.local_batch_size} sequences{each}")
        if self.muon_split and self.optimizer != "muon":
            raise ValueError(f"muon_split: only the optimizer muon has it, not {self.optimizer}; leave it out")
        if self.recompute is not None and self.compile != "none":
            raise ValueError("recompute: compiled layers decide themselves what to keep; allowed with it: compile none")
        self._check_schedule()
        if self.transition is not None and self.steps < 2:
            raise ValueError("transition: needs at least two steps, one before and one after")
        if any(step > self.steps for step in self.keep_steps):
            raise ValueError(f"keep_steps: must be at most the run's {self.steps} steps, got {max(self.keep_steps)}")
        return self

    def _check_schedule(self) -> None:
        decays = self.schedule == "wsd"
        if self.warmup_steps is None and self.decay_steps is None:
            if self.warmup_fraction + (self.decay_fraction if decays else 0) > 1:
                raise ValueError("warmup_fraction + decay_fraction: must be at most 1")
        elif self.warmup + (self.decay if decays else 0) > self.steps:
            raise ValueError(
                f"warmup_steps, decay_steps: together at most the run's {self.steps} steps, "
                f"got {self.warmup + self.decay}"
            )
        if self.decay_steps is not None and not decays:
            raise ValueError(f"decay_steps: only the schedule wsd has it, not {self.schedule}")

    @property
    def batch_size(self) -> int:
        """Sequences per optimiser step."""
        return self.batch_tokens // self.seq_len

    @property
    def local_batch_size(self) -> int:
        """Sequences of each process per optimiser step."""
        return self.batch_size // self.processes

    @property
    def steps(self) -> int:
        """Optimiser steps; the run processes `steps * batch_tokens` tokens."""
        return self.tokens // self.batch_tokens

    @property
    def warmup(self) -> int:
        """Steps of warm-up."""
        return math.ceil(self.warmup_fraction * self.steps) if self.warmup_steps is None else self.warmup_steps

    @property
    def decay(self) -> int:
        """Steps in which `wsd` decays."""
        return math.ceil(self.decay_fraction * self.steps) if self.decay_steps is None else self.decay_steps

    @property
    def switch_step(self) -> int | None:
        """Optimiser steps before the transition, None without one; at least one step stands on either side."""
        if self.transition is None:
            return None
        return min(max(round(self.transition.at * self.steps), 1), self.steps - 1)
