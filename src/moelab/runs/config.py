"""What one run is: an architecture, its data and its training. The run is named by a hash of this content."""

from typing import Any, Literal, Self, cast, get_args

from pydantic import Field, model_validator

from moelab.architecture import ModelConfig, token_choice_config
from moelab.config import Config, TokenCount
from moelab.errors import InputError
from moelab.files import sha256_json
from moelab.runs.train_config import AUTO, Parallel, TrainConfig

Tracker = Literal["tensorboard", "wandb"]
"""Where the numbers of a run may be logged, besides its record."""
DATA_PLACEHOLDER = "DATA"
"""`data.path` of a run config that a plan wrote: the data is still to be chosen."""
_NOT_IDENTITY = ("keep_checkpoints", "keep_steps", "verify_data")
"""Training fields that change no number of the run."""


def check_tracker(name: str) -> Tracker:
    """The name of a log. Raises InputError for another one."""
    for known in get_args(Tracker):
        if name == known:
            return cast(Tracker, known)
    raise InputError(f"--log: expected {' or '.join(get_args(Tracker))}, got {name!r}")


class DataConfig(Config):
    """Prepared data: a folder that `moelab data prepare` wrote, and how many of its training tokens may be seen.

    `path` is where the data lies and is not part of the run's identity; `manifest_hash` is.
    """

    path: str
    manifest_hash: str | None = None
    unique_tokens: TokenCount | None = None


class Parent(Config):
    """The run and the step whose checkpoint a branch continues from; the run lies in the same folder of runs."""

    run: str = Field(pattern=r"^[0-9a-f]{16}$", description="a run id: sixteen hexadecimal digits")
    step: TokenCount
    adopted: bool = Field(default=False, description="whether the machine's part of the parent's training may differ")


class RunConfig(Config):
    """One training run. `name` and `labels` are for people (and for designs); they do not change what is trained.

    With a `parent`, the run goes on from that run's checkpoint after that step (a branched decay).
    """

    model: ModelConfig
    data: DataConfig
    train: TrainConfig
    name: str | None = None
    labels: dict[str, str] = {}
    parent: Parent | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.train.transition is not None:
            router = self.model.moe.router if self.model.moe else "none: the model is dense"
            if router != "mixture_of_tokens":
                raise ValueError(f"train.transition: the router must be mixture_of_tokens, it is {router}")
            try:
                token_choice_config(self.model)
            except InputError as error:
                raise ValueError(f"train.{error}") from None
        if self.train.mtp_loss is not None and not self.model.mtp_layers:
            raise ValueError("train.mtp_loss: needs model.mtp_layers")
        if self.parent is not None and self.parent.step >= self.train.steps:
            raise ValueError(f"parent.step: must be below the run's {self.train.steps} steps, got {self.parent.step}")
        if self.train.parallel is not None:
            self._check_mesh(self.train.parallel)
        return self

    def _check_mesh(self, mesh: Parallel) -> None:
        """What cannot be sharded over processes, or would be another model there."""
        moe = self.model.moe
        if mesh.expert > 1 and moe is None:
            raise ValueError("train.parallel.expert: the model is dense; allowed: 1")
        if moe is not None and moe.n_experts % mesh.expert:
            raise ValueError(f"train.parallel.expert: must divide the {moe.n_experts} experts, got {mesh.expert}")
        if moe is not None and moe.traits.grouped and moe.group_size is None and (moe.grouping or "batch") == "batch":
            raise ValueError(
                "model.moe.group_size: with train.parallel groups by position need a size; allowed: a divisor of the "
                f"{self.train.micro_batch or self.train.local_batch_size} sequences of a forward pass"
            )
        if self.train.transition is not None:
            raise ValueError("train.transition: not with train.parallel; allowed: train.processes alone")
        if mesh.expert > 1 and self.train.compile != "none":
            raise ValueError("train.compile: rows sent between processes are not compiled; allowed: none")

    @property
    def final_model(self) -> ModelConfig:
        """The architecture that the run ends with: another than `model` after a transition."""
        return token_choice_config(self.model) if self.train.transition else self.model

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
        content = self.model_dump(mode="json", exclude_defaults=True, include={"model", "data", "train", "parent"})
        content["data"].pop("path", None)
        train = content["train"]
        for field in _NOT_IDENTITY:
            train.pop(field, None)
        if not self.train.muon_split or self.train.optimizer != "muon":
            train.pop("muon_split", None)
        # Runs of 0.1 on native kernels keep their names; kernels decide nothing on a GPU or in bf16.
        if train.get("kernels") != "torch" or (self.train.device, self.train.precision) != ("cpu", "fp32"):
            train.pop("kernels", None)
        return content

    def differences(self, other: "RunConfig") -> list[str]:
        """Dotted names of what two resolved runs do not have in common, of all that decides their outcomes."""
        mine, its = _flat(self.identity()), _flat(other.identity())
        return sorted(name for name in mine.keys() | its.keys() if mine.get(name) != its.get(name))


def _flat(value: dict[str, Any], before: str = "") -> dict[str, Any]:
    """{a: {b: 1}} -> {a.b: 1}."""
    found: dict[str, Any] = {}
    for key, inner in value.items():
        found |= _flat(inner, f"{before}{key}.") if isinstance(inner, dict) else {before + key: inner}
    return found
