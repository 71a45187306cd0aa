"""What one run is: an architecture, its data and its training. The run is named by a hash of this content."""

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from moelab.architecture import ModelConfig
from moelab.config import Config, Count, CountOrZero, Fraction, NonNegative, Positive
from moelab.errors import InputError
from moelab.files import sha256_json

AUTO = "auto"


class DataConfig(Config):
    """Prepared data: a folder that `moelab data prepare` wrote, and how many of its training tokens may be seen.

    `path` says where the data lies and is not part of the run's identity; `manifest_hash` is.
    """

    path: str
    manifest_hash: str | None = None
    unique_tokens: Count | None = None


class TrainConfig(Config):
    """How one run is trained. `auto` values are resolved once, before the run is named.

    `tokens` is rounded down to whole optimiser steps of `batch_tokens`. With `muon`, hidden matrices (each expert by
    itself) are orthogonalised and their step is scaled to AdamW's size, so one `learning_rate` serves both.
    `decay_fraction` is the share of steps in which `wsd` decays; `final_lr_fraction` the rate at the end.
    """

    tokens: Count
    seq_len: Count
    batch_tokens: Count
    micro_batch: Count | None = Field(default=None, description="sequences per forward pass; default: the whole batch")
    seed: CountOrZero = 0
    optimizer: Literal["adamw", "muon"] = "adamw"
    learning_rate: Positive = 3e-3
    schedule: Literal["cosine", "wsd", "constant"] = "cosine"
    warmup_fraction: Fraction = 0.02
    decay_fraction: Fraction = 0.2
    final_lr_fraction: Fraction = 0.1
    weight_decay: NonNegative = 0.1
    beta1: Fraction = Field(default=0.9, lt=1)
    beta2: Fraction = Field(default=0.95, lt=1)
    epsilon: Positive = 1e-8
    muon_momentum: Fraction = Field(default=0.95, lt=1)
    grad_clip: NonNegative = 1.0
    logit_z_loss: NonNegative = 0.0
    evaluations: Count = Field(default=4, description="evaluations during the run, the last one at its end")
    eval_tokens: Count = 100_000
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    threads: CountOrZero = Field(default=0, le=1024, description="CPU threads; 0 lets the machine decide")
    dispatch: str = AUTO

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.batch_tokens % self.seq_len:
            raise ValueError(f"batch_tokens: must be a multiple of seq_len ({self.seq_len}), got {self.batch_tokens}")
        if self.tokens < self.batch_tokens:
            raise ValueError(f"tokens: must hold at least one batch ({self.batch_tokens}), got {self.tokens}")
        if self.eval_tokens < self.seq_len:
            raise ValueError(f"eval_tokens: must be at least seq_len ({self.seq_len}), got {self.eval_tokens}")
        if self.micro_batch is not None and self.batch_size % self.micro_batch:
            raise ValueError(f"micro_batch: must divide the {self.batch_size} sequences of a batch")
        if self.warmup_fraction + (self.decay_fraction if self.schedule == "wsd" else 0) > 1:
            raise ValueError("warmup_fraction + decay_fraction: must be at most 1")
        return self

    @property
    def batch_size(self) -> int:
        """Sequences per optimiser step."""
        return self.batch_tokens // self.seq_len

    @property
    def steps(self) -> int:
        """Optimiser steps; the run processes `steps * batch_tokens` tokens."""
        return self.tokens // self.batch_tokens


class RunConfig(Config):
    """One training run. `name` and `labels` are for people (and for designs); they do not change what is trained."""

    model: ModelConfig
    data: DataConfig
    train: TrainConfig
    name: str | None = None
    labels: dict[str, str] = {}

    @property
    def resolved(self) -> bool:
        """Whether nothing is left to be decided on the machine that trains it."""
        train = self.train
        open_choices = (train.device, train.precision, train.dispatch)
        return AUTO not in open_choices and train.threads > 0 and self.data.manifest_hash is not None

    @property
    def run_id(self) -> str:
        """Sixteen hex digits of the SHA-256 of everything that decides the outcome; no paths, no names.

        Raises InputError while `auto` values are unresolved.
        """
        if not self.resolved:
            raise InputError("train: device, precision, threads, dispatch and the data's hash must be resolved first")
        return sha256_json(self.identity())[:16]

    def identity(self) -> dict[str, Any]:
        """The plain data that `run_id` hashes. Defaults are left out, so a new optional field renames no old run."""
        content = self.model_dump(mode="json", exclude_defaults=True, include={"model", "data", "train"})
        content["data"].pop("path", None)
        return content
