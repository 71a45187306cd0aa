"""Utilisation in training of every design of a lattice, predicted on its own layout (`layouts.py`) or as the budget
states it."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moelab.architecture.counts import count_flops
from moelab.planning.budget import Budget
from moelab.planning.kept import kept_columns
from moelab.planning.lattice import Lattice
from moelab.planning.layouts import Chosen, cluster_key, layouts
from moelab.planning.utilisation import PREDICTED, MfuTable
from moelab.serving.training_calibration import training_calibration
from moelab.serving.training_layout import Cluster, forwards
from moelab.serving.training_time import product_rate

Array = NDArray[Any]

BATCH = (0.292, 0.3271)
"""Tokens of a batch at C FLOPs: 0.292 C^0.3271 (DeepSeek LLM, arXiv 2401.02954), to the nearest power of two."""
TYPICAL_SHARE = 0.4
"""Of the bf16 peak: only to size a cluster and a batch, both of which move the prediction little."""
MONTH = 30.0
"""Days in which a training of given FLOPs is assumed to finish, where the budget has no devices."""
LEAST_DEVICES = 256
"""Of such a training: memory for designs of a trillion parameters."""
KEPT = 16
"""Clusters whose utilisation stays with a lattice: 2.5 MB each for the default space."""


def utilisation(lattice: Lattice, budget: Budget) -> Any:
    """Share of the bf16 peak in training, of FLOPs as the lattice counts them (full square): a number or (n,). Of the
    peak of all devices, where a predicted layout leaves some idle.

    0 where a design does not fit the budget's devices.
    """
    if budget.mfu == PREDICTED:
        return _predicted(lattice, budget)
    stated = stated_utilisation(lattice, budget)
    return stated if budget.mfu_convention == "full" else stated * lattice.flops_train / causal_flops(lattice)


def causal_flops(lattice: Lattice) -> Array:
    """Training FLOPs per token with causal attention scores (n,)."""
    (found,) = kept_columns(lattice, "causal", None, 1, _causal)
    return found


def _causal(lattice: Lattice) -> list[Array]:
    return [np.asarray(count_flops(lattice.shape, lattice.space.seq_len, causal=True).train, float)]


def stated_utilisation(lattice: Lattice, budget: Budget) -> Any:
    if not isinstance(budget.mfu, MfuTable):
        return float(budget.mfu)
    widths = sorted(budget.mfu.experts)
    d_expert = np.maximum(np.asarray(lattice.shape.d_expert, float), 1.0)
    by_width = np.interp(np.log(d_expert), np.log(widths), [budget.mfu.experts[width] for width in widths])
    return np.where(lattice.is_moe, by_width, budget.mfu.dense)


def best_utilisation(budget: Budget) -> float:
    """The largest share any design reaches; where it is predicted, that of large products."""
    if budget.mfu == PREDICTED:
        device = budget.training_device
        assert device is not None
        return product_rate(device, budget.train_precision or "bf16", training_calibration().coefficients) / device.bf16
    if isinstance(budget.mfu, MfuTable):
        return max(budget.mfu.dense, *budget.mfu.experts.values())
    return float(budget.mfu)


def cluster_of(lattice: Lattice, budget: Budget) -> Cluster:
    """The devices that train, and their batch. Without devices in the budget: enough for a month."""
    device = budget.training_device
    assert device is not None
    second = device.bf16 * TYPICAL_SHARE
    if budget.gpus is not None and budget.days is not None:
        gpus, flops = budget.gpus, budget.gpus * budget.days * 86400 * second
    else:
        flops = budget.flops or 0.0
        gpus = 2 ** math.ceil(math.log2(min(max(flops / (second * 86400 * MONTH), LEAST_DEVICES), 16384)))
    batch = 2.0 ** round(math.log2(max(BATCH[0] * flops ** BATCH[1], 1.0)))
    precision = budget.train_precision or "bf16"
    return Cluster(device=device, gpus=gpus, precision=precision, seq_len=lattice.space.seq_len, batch_tokens=batch)


def _predicted(lattice: Lattice, budget: Budget) -> Array:
    cluster = cluster_of(lattice, budget)

    def compute(some: Lattice) -> list[Array]:
        chosen = layouts(some, cluster)
        parts = [_shares(some.take(part), chosen.take(part), cluster) for part in some.chunks()]
        return [np.concatenate(parts) if parts else np.zeros(0)]

    (found,) = kept_columns(lattice, "utilisation", cluster_key(cluster), KEPT, compute)
    return found


def _shares(part: Lattice, chosen: Chosen, cluster: Cluster) -> Array:
    setup = cluster.setup(chosen.sizes, chosen.micro_batch, forwards(chosen.recompute))
    seconds = training_calibration().seconds(part.shape, setup)
    used = chosen.sizes.devices / cluster.gpus
    return np.where(chosen.fits, part.flops_train / seconds / cluster.device.bf16 * used, 0.0)
