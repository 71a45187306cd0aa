"""Columns of a lattice that its next plans need again: kept with the whole lattice, each design computed once."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moelab.planning.lattice import Lattice

Array = NDArray[Any]
Compute = Callable[[Lattice], Sequence[Array]]
SHARE = 1 / 16
"""Of a whole lattice: for fewer designs nothing is kept with the whole, only with them."""


def kept_columns(lattice: Lattice, name: str, key: Any, most: int, compute: Compute) -> list[Array]:
    """The columns (each (n,)) that `compute` gives for the designs of a lattice, each design's values by itself.

    They are kept with the whole lattice of which these designs were taken, under `name` for the `most` latest keys, and
    only designs that were not asked for before are computed.
    """
    own = vars(lattice).get("_columns", {}).get(name)
    if own is not None and own[0] == key:
        return list(own[1])
    whole, at = lattice.root
    table = vars(whole).setdefault("_kept_columns", {}).setdefault(name, OrderedDict[Any, _Filled]())
    if key not in table and len(lattice) < SHARE * len(whole):
        found = list(compute(lattice))
    else:
        filled = table.setdefault(key, _Filled(len(whole)))
        table.move_to_end(key)
        while len(table) > most:
            table.popitem(last=False)
        found = filled.of(lattice, whole, at, compute)
    vars(lattice).setdefault("_columns", {})[name] = (key, found)
    return found


class _Filled:
    """Columns of n designs, of which those that are `known` have been computed."""

    def __init__(self, n: int) -> None:
        self.known = np.zeros(n, bool)
        self.columns = list[Array]()

    def of(self, lattice: Lattice, whole: Lattice, at: Array | None, compute: Compute) -> list[Array]:
        """The columns of the lattice's designs, which stand at positions `at` of the whole one (None: all)."""
        missing = ~self.known if at is None else ~self.known[at]
        if missing.any():
            new = np.flatnonzero(missing) if at is None else at[missing]
            found = compute(lattice if missing.all() else whole.take(new))
            self.columns = self.columns or [np.zeros(len(self.known), column.dtype) for column in found]
            for column, values in zip(self.columns, found, strict=True):
                column[new] = values
            self.known[new] = True
        return [column.copy() if at is None else column[at] for column in self.columns]
