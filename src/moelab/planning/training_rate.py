"""Utilisation in training of every design of a lattice, predicted or as the budget states it.

The prediction is by classes: designs of equal experts whose size is within a quarter of an octave train on the layout
that is the best for the largest of them in the whole lattice (`serving/training_layout.py`), made to fit each
(`own_layout.py`); the time of each is its own.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moelab.architecture.counts import count_flops
from moelab.architecture.layout import Layout, LayoutSizes
from moelab.planning.budget import Budget
from moelab.planning.kept import kept_columns
from moelab.planning.lattice import Lattice
from moelab.planning.utilisation import PREDICTED, MfuTable
from moelab.serving.own_layout import own_layouts
from moelab.serving.training_calibration import training_calibration
from moelab.serving.training_layout import ChosenLayouts, Cluster, choose_layouts, forwards
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
FIELDS = tuple(Layout.model_fields)
"""The sizes of a layout, the first columns of `Chosen.rows`."""


@dataclass(frozen=True)
class Chosen:
    """The layout of n designs: sizes by name, micro-batch, position of the recomputation; `fits` where there is one."""

    rows: NDArray[np.int64]

    @property
    def sizes(self) -> LayoutSizes:
        """The layouts."""
        return LayoutSizes(**{name: self.rows[:, i] for i, name in enumerate(FIELDS)})

    @property
    def micro_batch(self) -> Array:
        """Sequences at a time (n,)."""
        return self.rows[:, -3]

    @property
    def recompute(self) -> Array:
        """Positions in RECOMPUTATIONS (n,)."""
        return self.rows[:, -2]

    @property
    def fits(self) -> Array:
        """Whether any layout fits (n,)."""
        return self.rows[:, -1] > 0


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
        table, which = _by_class(some, cluster)
        parts = [_shares(some.take(part), _chosen(table, which[part]), cluster) for part in some.chunks()]
        return [np.concatenate(parts) if parts else np.zeros(0)]

    (found,) = kept_columns(lattice, "utilisation", _key(cluster), KEPT, compute)
    return found


def _shares(part: Lattice, chosen: Chosen, cluster: Cluster) -> Array:
    chosen = _own(chosen, part, cluster)
    setup = cluster.setup(chosen.sizes, chosen.micro_batch, forwards(chosen.recompute))
    seconds = training_calibration().seconds(part.shape, setup)
    used = chosen.sizes.devices / cluster.gpus
    return np.where(chosen.fits, part.flops_train / seconds / cluster.device.bf16 * used, 0.0)


def layouts(lattice: Lattice, cluster: Cluster) -> Chosen:
    """The layout of each design's class, that of its largest design in the whole lattice of which these were taken."""
    return _own(_chosen(*_by_class(lattice, cluster)), lattice, cluster)


def _own(chosen: Chosen, lattice: Lattice, cluster: Cluster) -> Chosen:
    """The layouts of classes made to fit their members."""
    similar = ChosenLayouts(
        seconds=np.where(chosen.fits, 0.0, np.inf), layout=chosen.sizes, micro_batch=chosen.micro_batch,
        recompute=chosen.recompute,
    )  # fmt: skip
    return Chosen(_rows(own_layouts(lattice.shape, similar, cluster, training_calibration())))


def _rows(found: ChosenLayouts) -> NDArray[np.int64]:
    """The rows of `Chosen`."""
    columns = [np.broadcast_to(getattr(found.layout, name), found.seconds.shape) for name in FIELDS]
    return np.stack([*columns, found.micro_batch, found.recompute, np.isfinite(found.seconds)], 1).astype(np.int64)


def _chosen(table: NDArray[np.int64], which: Array) -> Chosen:
    return Chosen(np.take(table, which, axis=1).T)  # each column is contiguous


def _by_class(lattice: Lattice, cluster: Cluster) -> tuple[NDArray[np.int64], Array]:
    """The rows of `Chosen`, as columns, of each class of a lattice, and the class of each design."""
    known: dict[int, Array] = vars(lattice.table).setdefault("_training_layouts", {}).setdefault(_key(cluster), {})
    whole = lattice.root[0]
    numbers, which, largest = _classed(whole)
    if lattice is not whole:
        own, which = np.unique(_classes(lattice), return_inverse=True)
        numbers, largest = own, largest[np.searchsorted(numbers, own)]
    new = np.array([i for i, number in enumerate(numbers.tolist()) if number not in known], np.int64)
    if new.size:
        found = choose_layouts(whole.take(largest[new]).shape, cluster, training_calibration())
        known.update(zip(numbers[new].tolist(), _rows(found), strict=True))
    if not len(numbers):
        return np.zeros((len(FIELDS) + 3, 0), np.int64), which
    return np.stack([known[number] for number in numbers.tolist()], axis=1), which


def _classed(whole: Lattice) -> tuple[Array, Array, Array]:
    """The classes of a lattice, ascending; the class of each design, a position among them; and the position of the
    largest design of each class. Kept with the lattice."""
    if "_classed" not in vars(whole):
        classes, which = np.unique(_classes(whole), return_inverse=True)
        order = np.argsort(whole.params_total, kind="stable")
        largest = np.empty(len(classes), np.int64)
        largest[which[order]] = order  # the last one written is the largest
        vars(whole)["_classed"] = (classes, which, largest)
    classes, which, largest = vars(whole)["_classed"]
    return classes, which, largest


def _classes(lattice: Lattice) -> Array:
    """A number for each design's experts and its size in quarters of an octave."""
    size = np.ceil(4 * np.log2(lattice.params_total)).astype(np.int64)
    return (lattice.n_experts * 4096 + lattice.of_option("top_k")) * 1024 + size


def _key(cluster: Cluster) -> tuple[Any, ...]:
    device = cluster.device
    return (device.name, cluster.gpus, cluster.precision, cluster.seq_len, cluster.batch_tokens)
