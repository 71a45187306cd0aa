"""The layout that each design of a lattice trains on, by classes of designs, so that few layouts have to be compared.

Designs of equal experts whose size is within a quarter of an octave share the best layout of the largest of them in the
whole lattice. A design that needs more memory on it than its devices have takes the best layout of its class among
those that leave so much more (a tier); one that still does not fit, the best for it alone.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moelab.architecture.layout import RECOMPUTATIONS, Layout, LayoutSizes
from moelab.architecture.training_memory import TrainingStep, device_memory
from moelab.planning.lattice import Lattice
from moelab.serving.training_calibration import training_calibration
from moelab.serving.training_layout import USABLE, ChosenLayouts, Cluster, choose_layouts, pieces_of, splits

Array = NDArray[Any]

TIER = 1.15
"""Each tier's layouts leave memory for designs that need this many times as much as those of the tier before."""
MOST_TRIES = 3
"""Tiers that are tried for a design."""
LAST_TIER = 12
"""From here on (five times the memory of the largest design of the class) a design has its own layout."""
FIELDS = tuple(Layout.model_fields)
"""The sizes of a layout, the first columns of `Chosen.rows`."""
VP = FIELDS.index("vp")


@dataclass(frozen=True)
class Chosen:
    """The layout of n designs: sizes by name, micro-batch, position of the recomputation; `fits` where there is one."""

    rows: NDArray[np.int64]

    @classmethod
    def of(cls, found: ChosenLayouts) -> "Chosen":
        """From layouts as they are chosen."""
        columns = [np.broadcast_to(getattr(found.layout, name), found.seconds.shape) for name in FIELDS]
        rows = np.stack([*columns, found.micro_batch, found.recompute, np.isfinite(found.seconds)], 1)
        return cls(rows.astype(np.int64))

    def take(self, index: Array | slice) -> "Chosen":
        """The designs `index`."""
        return Chosen(self.rows[index])

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


def layouts(lattice: Lattice, cluster: Cluster) -> Chosen:
    """The layout of each design (n,), whichever other designs are asked for with it; none where the largest design of
    its class has none."""
    classes = _Classes(lattice, cluster)
    tier = np.zeros(len(lattice), np.int64)
    rows = classes.rows(slice(None), tier)
    over = np.ones(len(lattice))
    for part in lattice.chunks():
        over[part] = _over(lattice.take(part), rows[part], cluster)
    fitting = rows[:, -1] > 0
    for _ in range(MOST_TRIES):
        left = np.flatnonzero(fitting & (over > 1) & np.isfinite(over))
        if not len(left):
            break
        tier[left] = np.minimum(tier[left] + np.ceil(np.log(over[left]) / np.log(TIER)), LAST_TIER)
        tried = classes.rows(left, tier[left])
        over[left] = _over(lattice.take(left), tried, cluster)
        rows[left] = tried
    left = np.flatnonzero(fitting & (over > 1))
    if len(left):
        rows[left] = Chosen.of(choose_layouts(lattice.take(left).shape, cluster, training_calibration())).rows
    return Chosen(rows)


def _over(lattice: Lattice, rows: Array, cluster: Cluster) -> Array:
    """Memory that each design needs on its fullest device over what the device has; infinite where the layout does not
    split the design (n,). `rows` are given each design's own number of pieces."""
    chosen, shape = Chosen(rows), lattice.shape
    rows[:, VP] = pieces_of(shape, chosen.sizes.pp)
    need = np.full(len(rows), np.inf)
    possible = chosen.fits & splits(shape, chosen.sizes)
    for level in range(len(RECOMPUTATIONS)):
        some = np.flatnonzero(possible & (chosen.recompute == level))
        if len(some):
            step = TrainingStep(
                micro_batch=chosen.micro_batch[some], seq_len=cluster.seq_len, recompute=RECOMPUTATIONS[level]
            )
            need[some] = device_memory(shape.take(some), chosen.sizes.take(some), step).total
    return need / (USABLE * cluster.device.memory)


class _Classes:
    """The classes of a lattice's designs, and the layouts of each tier, kept with the whole lattice."""

    def __init__(self, lattice: Lattice, cluster: Cluster) -> None:
        self.whole, self.cluster = lattice.root[0], cluster
        kept = vars(self.whole).setdefault("_training_layouts", {})
        self.known: dict[tuple[int, int], Array] = kept.setdefault(cluster_key(cluster), {})
        self.numbers, self.which, self.largest = _classed(self.whole)
        if lattice is not self.whole:
            self.which = np.searchsorted(self.numbers, _classes(lattice))

    def rows(self, some: Array | slice, tier: Array) -> Array:
        """The rows of `Chosen` of designs `some`, each of its tier."""
        asked, inverse = np.unique(self.which[some] * (LAST_TIER + 1) + tier, return_inverse=True)
        number, tiers = np.divmod(asked, LAST_TIER + 1)
        keys = list(zip(number.tolist(), tiers.tolist(), strict=True))
        for each in np.unique(tiers).tolist():
            new = np.array([key[0] for key in keys if key[1] == each and key not in self.known], np.int64)
            if new.size:
                shape, usable = self.whole.take(self.largest[new]).shape, USABLE / TIER**each
                found = choose_layouts(shape, self.cluster, training_calibration(), usable)
                self.known.update(zip([(one, each) for one in new.tolist()], Chosen.of(found).rows, strict=True))
        if not keys:
            return np.zeros((0, len(FIELDS) + 3), np.int64)
        return np.stack([self.known[key] for key in keys])[inverse]


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


def cluster_key(cluster: Cluster) -> tuple[Any, ...]:
    """What tells two clusters apart."""
    device = cluster.device
    return (device.name, cluster.gpus, cluster.precision, cluster.seq_len, cluster.batch_tokens)
