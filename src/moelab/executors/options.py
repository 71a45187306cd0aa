"""Where a study's runs are trained: this machine, a Ray cluster, or Slurm; and the options of each."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from moelab.config import Bytes, Config, Count, NonNegative, Seconds
from moelab.errors import InputError
from moelab.executors.order import Order, Way
from moelab.lease import PATIENCE_SECONDS
from moelab.printable import short
from moelab.yaml_reader import parse_yaml

MOST_SHARED = 32
"""Runs that may share a device: the end of the measured numbers 1, 2, 4, ..., and the streams that PyTorch gives out
before it gives the first one again."""

_ONLY = {
    "address": ("ray",),
    "gpus": ("ray", "slurm"),
    "cluster": ("slurm",),
    "partition": ("slurm",),
    "account": ("slurm",),
    "qos": ("slurm",),
    "time": ("slurm",),
    "cpus": ("slurm",),
    "setup": ("slurm",),
}
"""Options that only some executors take."""


class ExecutorConfig(Config):
    """How a study's runs are trained; nothing here changes a result.

    `patience` is how long a remote worker's lease may show no heartbeat before its run is given to another (seconds;
    keep it above the minute for which network file systems may show an old state). `order: listed` trains the runs as
    the study lists them, so that the finished ones are a useful table at any time; without it the most expensive come
    first, which ends soonest with several workers. `share` is how many runs share a GPU (on a CPU: a worker's cores);
    `auto`, the default on CUDA, measures it on the study's own shapes. `share_by` is how: by `streams` of one process
    that trains them in turns, or by `processes`. `memory` replaces the estimate of
    what a run needs on a cluster, where a job asks for it for each run it trains in turns, or of what is free on this
    machine. Slurm takes `partition`, `account`, `qos`, `time` per job,
    `cpus` and `gpus` per run, `setup` lines, and `cluster: local` to try it without Slurm. Ray takes the `address` of
    a cluster; without, it starts one on this machine.
    """

    kind: Literal["local", "ray", "slurm"] = "local"
    order: Literal["listed"] | None = None
    share: Annotated[Count, Field(le=MOST_SHARED)] | Literal["auto"] | None = None
    share_by: Way | None = None
    patience: Seconds = PATIENCE_SECONDS
    checkpoint_seconds: NonNegative = 15.0
    memory: Bytes | None = None
    address: str | None = None
    gpus: NonNegative | None = None
    cluster: Literal["slurm", "local"] = "slurm"
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    time: Seconds = 24 * 3600.0
    cpus: Count | None = None
    setup: list[str] = []

    @model_validator(mode="after")
    def _check(self) -> Self:
        for name, kinds in _ONLY.items():
            if self.kind not in kinds and getattr(self, name) != type(self).model_fields[name].get_default():
                raise ValueError(f"{name}: only the executor {' or '.join(kinds)} takes it, not {self.kind}")
        if self.kind != "local" and self.share == "auto":
            raise ValueError(f"share: only the executor local measures it; allowed with {self.kind}: a number of runs")
        if self.kind != "local" and self.share_by == "processes":
            raise ValueError(f"share_by: processes need the executor local; allowed with {self.kind}: streams")
        if self.share_by is not None and self.share is None:
            raise ValueError("share_by: needs share, a number of runs or auto")
        return self

    def jobs(self, n_runs: int) -> int:
        """Jobs elsewhere that have a run each, or as many as share one."""
        return -(-n_runs // (self.share if isinstance(self.share, int) else 1))

    def with_options(self, kind: str | None, assignments: list[str]) -> "ExecutorConfig":
        """The same with another kind and `key=value` options. Raises InputError naming the option."""
        value = {} if kind is not None and kind != self.kind else self.model_dump(exclude_defaults=True)
        if kind is not None:
            value["kind"] = kind
        for assignment in assignments:
            key, equals, text = assignment.partition("=")
            if not equals or not key.strip():
                raise InputError(f"--executor-option: expected KEY=VALUE, got {assignment!r}")
            try:
                value[key.strip()] = parse_yaml(text, "value")
            except InputError:
                raise InputError(f"--executor-option {key.strip()}: cannot read the value {short(text)}") from None
        return ExecutorConfig.parse(value, "--executor")


def job_memory(order: Order, options: ExecutorConfig) -> float:
    """Bytes that a job elsewhere asks for: those of each run that it trains in turns."""
    return float(options.memory or order.needs.memory) * order.sharing.turns
