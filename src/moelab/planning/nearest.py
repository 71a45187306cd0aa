"""Released models beside a plan: the nearest in size, trained with this budget, by the same laws and prices."""

from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moelab.architecture import ModelConfig, count_flops, count_parameters
from moelab.architecture.released import ReleasedModel, released_models
from moelab.errors import InputError
from moelab.laws.design import Design
from moelab.planning.budget import Budget
from moelab.planning.credit import credited_design
from moelab.planning.ranking import Ranking
from moelab.serving import serve_one

Array = NDArray[Any]
Row = dict[str, Any]

AHEAD = float(np.log(10.0))
"""Log compute by which a released model is reported ahead at most: beyond it the laws are far outside their runs."""

PRICE = "cost_per_million_tokens"

COUNT = 3
"""Released models that a plan shows."""

FAR = 3.0
"""Factor from the learning rates of released models of this size from which on a rule's rate is marked: theirs differ
by 1.3 among MoE models of 2.4B to 37B active parameters and by 4 among dense ones of 8B to 405B."""
SAME_SIZE = 4.0
"""Factor of active parameters within which a released model is of this size."""


def nearest_released(ranking: Ranking, budget: Budget, chosen: int) -> list[Row]:
    """The released models nearest to design `chosen` in active and total parameters, nearest first.

    A row: `name`, `params_active`, `params_total`, `trained_tokens` (published, or None), `tokens` at the training
    FLOPs of the chosen design,
    `excess_compute` and `extra_nats` over the chosen design (None where no law of the ensemble applies), `laws`, those
    of the ensemble that cover both and give these two numbers, `of_laws`, how many cover the chosen design,
    `cost_per_million_tokens` with _low and _high (None where it is not served or does not fit the devices).
    """
    lattice = ranking.feasible.lattice
    aim = np.log([lattice.params_active[chosen], lattice.params_total[chosen]])
    sizes = _sizes()
    near = sorted(released_models().values(), key=lambda model: float(np.abs(np.log(sizes[model.name]) - aim).sum()))
    return [_row(ranking, budget, chosen, model) for model in near[:COUNT]]


def released_rates(params_active: float, params_total: float, is_moe: bool) -> list[Row]:
    """Learning rate and batch of the released models nearest in size, of the kind asked for, nearest first: `name`,
    `params_active`, `learning_rate` (peak), `batch_tokens` (after any ramp, or None), `optimizer`, `source`."""
    aim, sizes = np.log([params_active, params_total]), _sizes()
    known = [
        model
        for model in released_models().values()
        if model.learning_rate is not None and (model.config.moe is not None) == is_moe
    ]
    near = sorted(known, key=lambda model: float(np.abs(np.log(sizes[model.name]) - aim).sum()))
    return [
        {
            "name": model.name,
            "params_active": sizes[model.name][0],
            "learning_rate": model.learning_rate,
            "batch_tokens": model.batch_tokens,
            "optimizer": model.optimizer,
            "source": model.recipe,
        }
        for model in near[:COUNT]
    ]


def apart_from_released(rate: float, params_active: float, rows: Sequence[Row]) -> str:
    """How far a learning rate is from those of released models of this size, in words: "29 times below those of
    released models of this size"; empty within a factor of three of one of them, and where there is none."""
    near = [float(row["learning_rate"]) for row in rows if _same_size(row, params_active)]
    if not near or min(near) / FAR <= rate <= max(near) * FAR:
        return ""
    below = rate < min(near)
    times = min(near) / rate if below else rate / max(near)
    return f"{times:.0f} times {'below' if below else 'above'} those of released models of this size"


def _same_size(row: Row, params_active: float) -> bool:
    return 1 / SAME_SIZE <= float(row["params_active"]) / params_active <= SAME_SIZE


@cache
def _sizes() -> dict[str, tuple[float, float]]:
    """Active and total parameters of every released model, by name."""
    counted = {name: count_parameters(model.config) for name, model in released_models().items()}
    return {name: (float(params.params_active), float(params.params_total)) for name, params in counted.items()}


def _row(ranking: Ranking, budget: Budget, chosen: int, model: ReleasedModel) -> Row:
    config, (active, total) = model.config, _sizes()[model.name]
    seq_len = ranking.feasible.lattice.space.seq_len
    tokens = min(ranking.feasible.train_flops_at(chosen) / count_flops(config, seq_len).train, budget.max_data)
    design = credited_design(config, np.array([tokens]), budget.unique_tokens, seq_len)
    behind = behind_chosen(ranking, design, chosen)
    return {
        "name": model.name,
        "params_active": active,
        "params_total": total,
        "trained_tokens": model.tokens,
        "tokens": tokens,
        **behind,
        **_price(config, budget),
    }


def behind_chosen(ranking: Ranking, design: Design, chosen: int) -> Row:
    """Excess compute and extra loss over the chosen design: medians over the same laws, those that cover both."""
    compute, nats, laws, of_laws = [], [], list[str](), 0
    for member, curve in zip(ranking.ensemble, ranking.curves, strict=True):
        own, base = float(member.loss(design)[0]), float(ranking.mean(member, chosen))
        names = [predictor.id for predictor in member.predictors]
        of_laws += len(names) if np.isfinite(base) else 0
        if np.isfinite(own) and np.isfinite(base):
            compute.append(float(curve.log_excess(own) - curve.log_excess(base)))
            nats.append(own - base)
            laws += names
    row: Row = {"excess_compute": None, "extra_nats": None, "laws": laws, "of_laws": of_laws}
    if nats:
        ahead = min(-float(np.median(compute)), AHEAD)
        row |= {"excess_compute": float(-np.expm1(ahead)), "extra_nats": float(np.median(nats))}
    return row


def _price(config: ModelConfig, budget: Budget) -> Row:
    """Dollars per million tokens on the budget's serving devices, with the ends of the 80 % interval."""
    wanted, names = budget.serving, ("", "_low", "_high")
    served: Row = {}
    if wanted is not None:
        with suppress(InputError):
            served = serve_one(config, wanted.traffic, wanted.device, wanted.price)
    return {f"{PRICE}{end}": served.get(f"{PRICE}{end}") for end in names}
