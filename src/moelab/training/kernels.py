"""The kernels that compute a run: one run id, one result, so a run goes on with those it began with or not at all."""

from collections.abc import Iterator
from contextlib import contextmanager

from moelab.errors import InputError
from moelab.model import native
from moelab.runs import TrainConfig


def kernels_of(train: TrainConfig) -> str:
    """`native` or `torch`. A config of 0.1 leaves it open: the compiled ones where they can run and are there."""
    if train.kernels != "auto":
        return train.kernels
    computes = train.device == "cpu" and train.precision == "fp32"
    return "native" if computes and native.load()[0] is not None else "torch"


@contextmanager
def computed_by(train: TrainConfig) -> Iterator[None]:
    """Within this block the run is computed by its own kernels. Raises InputError where this machine lacks them."""
    asked = train.dispatch == "native" and (train.device, train.precision) == ("cpu", "fp32")
    with native.using("native" if asked and train.kernels == "auto" else train.kernels):
        yield


def check_kernels(began: str, train: TrainConfig) -> None:
    """Raises InputError where a run began on other kernels than those that would go on with it (empty: unknown)."""
    if began and began != kernels_of(train):
        raise InputError(
            f"train.kernels: the run began on {began} kernels, this machine would go on with {kernels_of(train)}; "
            "--adopt goes on from it as a run of its own"
        )
