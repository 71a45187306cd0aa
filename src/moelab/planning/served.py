"""What it costs to serve the designs of a lattice, kept with it: a plan asks for the same traffic many times."""

from dataclasses import fields
from typing import Any

from numpy.typing import NDArray

from moelab.planning.budget import Serving
from moelab.planning.kept import kept_columns
from moelab.planning.lattice import Lattice
from moelab.serving import ServingCost, serve

KEPT = 3
"""Kinds of traffic and devices whose costs stay with a lattice: 28 MB each for the default space."""


def served_lattice(lattice: Lattice, wanted: Serving) -> ServingCost:
    """The cheapest way to serve every design (n,). Costs for the latest traffic and devices stay with the lattice."""
    terms = (wanted.traffic, wanted.device, wanted.price)

    def compute(some: Lattice) -> list[NDArray[Any]]:
        cost = ServingCost.join([serve(some.take(chunk).shape, *terms) for chunk in some.chunks()])
        return [getattr(cost, field.name) for field in fields(cost)]

    return ServingCost(*kept_columns(lattice, "served", terms, KEPT, compute))
