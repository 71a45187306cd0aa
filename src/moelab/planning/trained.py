"""How designs train on a budget's devices, as plain data: utilisation, days, device-hours, dollars, with intervals."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moelab.architecture.layout import RECOMPUTATIONS, Layout
from moelab.planning.budget import Budget
from moelab.planning.lattice import Lattice
from moelab.planning.layouts import FIELDS, layouts
from moelab.planning.training_rate import cluster_of, stated_utilisation, utilisation
from moelab.planning.utilisation import PREDICTED, most_mfu
from moelab.serving.replicates import Replicates
from moelab.serving.training_calibration import (
    HARDWARE,
    KINDS,
    PRECISION,
    TrainingCalibration,
    training_calibration,
)
from moelab.serving.training_layout import Cluster, forwards

Array = NDArray[Any]
Row = dict[str, Any]


def trainings_of(some: Lattice, tokens: Array, price: float | None, budget: Budget) -> Sequence[Row | None]:
    """How each design trains on its `tokens` (n,): MFU, days, device-hours and dollars with 80 % intervals, layout, and
    which calibration predicted it. None without devices; of a stated MFU no interval and no layout; without the
    `price` of a device-hour no dollars."""
    if budget.training_device is None:
        return [None] * len(some)
    if budget.mfu != PREDICTED:
        return [_as_stated(some.take([i]), float(tokens[i]), price, budget) for i in range(len(some))]
    cluster = cluster_of(some, budget)
    chosen = layouts(some, cluster)
    setup = cluster.setup(chosen.sizes, chosen.micro_batch, forwards(chosen.recompute))
    calibration = training_calibration()
    speed = calibration.predict(some.shape, setup)
    devices = np.broadcast_to(chosen.sizes.devices, len(some))
    known = {kind: _source(calibration, cluster, kind) for kind in KINDS}
    rows = list[Row | None]()
    for i in range(len(some)):
        used = int(devices[i]) if chosen.fits[i] else cluster.gpus
        paid = tokens[i] / 3600 * cluster.gpus / used  # idle devices are paid for too
        hours = {name: float(getattr(speed, f"seconds{name}")[i]) * float(paid) for name in ("", "_low", "_high")}
        sizes = {name: int(size) for name, size in zip(FIELDS, chosen.rows[i], strict=False)}
        rows.append(
            {
                "predicted": True,
                "mfu": float(speed.mfu[i]),
                "mfu_low": float(speed.mfu_low[i]),
                "mfu_high": float(speed.mfu_high[i]),
                "mfu_of": "bf16 peak",
                "mfu_convention": "causal",
                "mfu_own": float(speed.mfu_own[i]),
                "precision": cluster.precision,
                "gpus": cluster.gpus,
                "gpus_used": used,
                "layout": str(Layout(**sizes)),
                "micro_batch": int(chosen.micro_batch[i]),
                "recompute": RECOMPUTATIONS[int(chosen.recompute[i])],
                **_spent(hours, price, cluster.gpus),
                "calibration": known["moe" if some.is_moe[i] else "dense"],
            }
        )
    return rows


def training_replicates(lattice: Lattice, budget: Budget) -> Replicates | None:
    """How training costs of these n designs go together over the calibration's replicates, each design on the layout it
    was predicted with (`Replicates`); None where the budget states an MFU or has no devices: then ratios are exact."""
    if budget.training_device is None or budget.mfu != PREDICTED:
        return None
    cluster = cluster_of(lattice, budget)
    chosen = layouts(lattice, cluster)
    setup = cluster.setup(chosen.sizes, chosen.micro_batch, forwards(chosen.recompute))
    return training_calibration().replicates(lattice.shape, setup)


def _source(calibration: TrainingCalibration, cluster: Cluster, kind: str) -> Row:
    """Which calibration predicts designs of this kind, with its error, and what it has no rows with."""
    asked = (cluster.device, cluster.precision, kind)
    missing = calibration.missing(*asked)
    return {
        "id": calibration.id,
        "n_rows": calibration.n_rows,
        "error": calibration.known(*asked).error,
        "held_out_by": " and ".join(["model", *missing]),
        "device_in_fit": HARDWARE not in missing,
        "precision_in_fit": PRECISION not in missing,
        "not_calibrated": missing,
        "without_rows": calibration.missing_words(*asked),
    }


def _as_stated(one: Lattice, tokens: float, price: float | None, budget: Budget) -> dict[str, Any]:
    device = budget.training_device
    assert device is not None
    share = float(np.broadcast_to(utilisation(one, budget), 1)[0])
    mfu, precision = float(np.broadcast_to(stated_utilisation(one, budget), 1)[0]), budget.train_precision or "bf16"
    hours = float(one.flops_train[0]) * tokens / (device.bf16 * share) / 3600
    return {
        "predicted": False,
        "mfu": mfu,
        "mfu_of": "bf16 peak",
        "mfu_convention": budget.mfu_convention,
        "mfu_own": mfu / most_mfu(device, precision),
        "precision": precision,
        "gpus": budget.gpus,
        **_spent({"": hours}, price, budget.gpus),
    }


def _spent(hours: dict[str, float], price: float | None, gpus: int | None) -> dict[str, float | None]:
    """Device-hours, days and dollars, with the ends of their intervals."""
    spent: dict[str, float | None] = {f"device_hours{end}": value for end, value in hours.items()}
    if gpus is not None:
        spent |= {f"days{end}": value / 24 / gpus for end, value in hours.items()}
    return spent | {f"dollars{end}": None if price is None else value * price for end, value in hours.items()}
