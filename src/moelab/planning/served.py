"""What it costs to serve the designs of a lattice, kept with it: a plan asks for the same traffic many times."""

from typing import Any

from moelab.planning.budget import Serving
from moelab.planning.lattice import Lattice
from moelab.serving import ServingCost, serve

MOST_OF = 0.7
"""Share of a lattice from which on it is served whole, so that another part of it needs no further work."""


def served_lattice(lattice: Lattice, wanted: Serving) -> ServingCost:
    """The cheapest way to serve every design (n,). Costs for the latest traffic and devices stay with the lattice."""
    terms = (wanted.traffic, wanted.device, wanted.price)
    origin = lattice.origin
    if origin is not None and len(lattice) >= MOST_OF * len(origin[0]):
        return served_lattice(origin[0], wanted).take(origin[1])
    found = _kept(lattice, terms)
    if found is None:
        found = ServingCost.join([serve(lattice.take(chunk).shape, *terms) for chunk in lattice.chunks()])
        vars(lattice)["_served"] = (terms, found)
    return found


def _kept(lattice: Lattice, terms: tuple[Any, ...]) -> ServingCost | None:
    """The costs that this lattice, or one that it was taken of, keeps for these terms."""
    kept = vars(lattice).get("_served")
    if kept is not None and kept[0] == terms:
        return kept[1]
    if lattice.origin is None:
        return None
    found = _kept(lattice.origin[0], terms)
    return None if found is None else found.take(lattice.origin[1])
