"""The columns of a lattice, counted for a block of backbones against choices of experts."""

from typing import Any

import numpy as np

from moelab.architecture import count_flops, count_parameters
from moelab.laws.design import width_ratio
from moelab.planning.credit import credit_of
from moelab.planning.shapes import ShapeTable

COLUMNS = (
    "backbone",
    "option",
    "params_total",
    "params_active",
    "params_non_embedding",
    "params_active_non_embedding",
    "params_router",
    "params_experts",
    "flops_forward",
    "flops_train",
    "width_ratio",
    "token_credit",
)
"""Columns of a `Lattice`, by name."""


def counted_block(table: ShapeTable, rows: slice, picks: slice) -> dict[str, Any]:
    """Backbones (B, 1) against options (M,): the formulas broadcast, then the combinations that exist are kept."""
    backbone = np.arange(rows.start, rows.stop, dtype=np.int32)[:, None]
    option = np.arange(picks.start, picks.stop, dtype=np.int32)
    shape = table.shape(backbone, option)
    params, flops = count_parameters(shape), count_flops(shape, table.space.seq_len)
    columns = {
        "backbone": backbone,
        "option": option,
        "params_total": params.params_total * 1.0,
        "params_active": params.params_active * 1.0,
        "params_non_embedding": params.params_non_embedding * 1.0,
        "params_active_non_embedding": params.params_active_non_embedding * 1.0,
        "params_router": params.router * 1.0,
        "params_experts": params.experts * 1.0,
        "flops_forward": flops.forward * 1.0,
        "flops_train": flops.train * 1.0,
        "width_ratio": width_ratio(shape),
        "token_credit": credit_of(
            flops.train, flops.attention_scores, params.params_active_non_embedding, table.space.seq_len
        ),
    }
    exists = table.exists(shape)
    exists = np.broadcast_to(exists, np.broadcast_shapes(*(np.shape(column) for column in columns.values())))
    if exists.all():
        return {name: np.broadcast_to(column, exists.shape).ravel() for name, column in columns.items()}
    return {name: np.broadcast_to(column, exists.shape)[exists] for name, column in columns.items()}
