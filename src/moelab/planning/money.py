"""Compute from machines and money from compute: utilisation by expert size, training price, lifetime price."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from moelab.errors import InputError
from moelab.planning.budget import Budget, MfuTable
from moelab.planning.lattice import Lattice

Array = NDArray[Any]


def compute_of(lattice: Lattice, budget: Budget) -> Any:
    """Training FLOPs that the budget buys: a number, or (n,) where utilisation depends on the design."""
    if budget.flops is not None:
        return budget.flops
    device = budget.training_device
    assert device is not None
    assert budget.gpus is not None
    assert budget.days is not None
    return budget.gpus * budget.days * 86400.0 * device.bf16 * utilisation(lattice, budget)


def most_compute(budget: Budget) -> float:
    """The compute at the best utilisation: what messages name."""
    if budget.flops is not None:
        return budget.flops
    device = budget.training_device
    assert device is not None
    best = budget.mfu if isinstance(budget.mfu, float) else max(budget.mfu.dense, *budget.mfu.experts.values())
    return (budget.gpus or 0) * (budget.days or 0.0) * 86400.0 * device.bf16 * best


def utilisation(lattice: Lattice, budget: Budget) -> Any:
    """Share of peak reached in training: a number, or (n,) from a table by expert width."""
    if not isinstance(budget.mfu, MfuTable):
        return float(budget.mfu)
    widths = sorted(budget.mfu.experts)
    d_expert = np.maximum(np.asarray(lattice.shape.d_expert, float), 1.0)
    by_width = np.interp(np.log(d_expert), np.log(widths), [budget.mfu.experts[width] for width in widths])
    return np.where(lattice.is_moe, by_width, budget.mfu.dense)


def training_price(lattice: Lattice, train_flops: Any, budget: Budget) -> Array:
    """Dollars of training (n,). Raises InputError where no hardware is given."""
    device = budget.training_device
    if device is None:
        raise InputError("train_hardware: needed to price the training")
    same = budget.serving is not None and budget.train_hardware in (None, budget.serving.hardware)
    price = budget.serving.price if same and budget.serving is not None else device.price
    seconds = train_flops / (device.bf16 * utilisation(lattice, budget))
    return np.asarray(seconds / 3600 * price)
