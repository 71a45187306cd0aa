"""Which designs fit a budget, and for how many tokens each can train."""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moelab.architecture.memory import bytes_of, bytes_of_cache, bytes_of_weight
from moelab.errors import InputError
from moelab.laws.design import Design
from moelab.planning.budget import Budget
from moelab.planning.counted import CountedDesign
from moelab.planning.lattice import Lattice
from moelab.planning.limits import LEAST, LIMITS
from moelab.planning.training_rate import best_utilisation, utilisation
from moelab.quantities import format_bytes, format_number

Array = NDArray[Any]


@dataclass(frozen=True)
class FeasibleSet:
    """n designs that fit, each with its training tokens and the distinct tokens among them."""

    lattice: Lattice
    tokens: Array
    unique_tokens: Array

    def __len__(self) -> int:
        return len(self.tokens)

    @cached_property
    def design(self) -> Design:
        """The designs as the laws' converters read them."""
        unique = None if self.unique_tokens is self.tokens else self.unique_tokens
        return CountedDesign(self.lattice, self.tokens, unique)

    @property
    def train_flops(self) -> Array:
        """Training FLOPs spent (n,)."""
        return self.lattice.flops_train * self.tokens

    def take(self, index: Any) -> "FeasibleSet":
        """The designs `index`."""
        tokens = self.tokens[index]
        unique = tokens if self.unique_tokens is self.tokens else self.unique_tokens[index]
        return FeasibleSet(self.lattice.take(index), tokens, unique)

    def train_flops_at(self, i: int) -> float:
        """Training FLOPs of design `i`."""
        return float(self.lattice.flops_train[i] * self.tokens[i])

    def join(self, other: "FeasibleSet") -> "FeasibleSet":
        """These designs and the others."""
        tokens = np.concatenate([self.tokens, other.tokens])
        fresh = self.unique_tokens is self.tokens and other.unique_tokens is other.tokens
        unique = tokens if fresh else np.concatenate([self.unique_tokens, other.unique_tokens])
        return FeasibleSet(self.lattice.join(other.lattice), tokens, unique)

    def with_tokens(self, tokens: Array, budget: Budget) -> "FeasibleSet":
        """The same designs trained for other numbers of tokens."""
        return FeasibleSet(self.lattice, tokens, _unique(tokens, budget))


def affordable_tokens(lattice: Lattice, budget: Budget, compute: Any = None) -> Array:
    """Tokens each design can train on under compute and data (n,); not positive where serving takes all compute."""
    flops = compute_of(lattice, budget) if compute is None else compute
    served = budget.serve_flops_tokens * lattice.flops_forward
    most = min(budget.max_data, budget.max_tokens or np.inf)
    tokens = np.minimum((flops - served) / lattice.flops_train, most)
    if budget.max_tokens_per_active is not None:
        tokens = np.minimum(tokens, budget.max_tokens_per_active * lattice.params_active)
    return np.asarray(tokens)


def memory_bytes(lattice: Lattice, budget: Budget) -> Array:
    """Weights at the budget's precision and the KV cache of one context (n,)."""
    context = budget.context or lattice.space.seq_len
    expert, other = bytes_of_weight(budget.precision)
    cache = bytes_of_cache(budget.precision) if budget.kv_precision is None else bytes_of(budget.kv_precision)
    if expert == other == cache:
        return np.asarray((lattice.params_total + lattice.kv_elements(context)) * expert)
    weights = lattice.params_total * other - lattice.params_experts * (other - expert)
    return np.asarray(weights + lattice.kv_elements(context) * cache)


def fit_budget(lattice: Lattice, budget: Budget) -> FeasibleSet:
    """The designs that fit. Raises InputError naming the limit that excludes all, with its nearest feasible value."""
    _check_data(lattice.space.seq_len, budget)
    tokens = affordable_tokens(lattice, budget)
    fitting = fits(lattice, budget, tokens)
    if not fitting.any():
        raise InputError(_infeasible(_uses(lattice, budget, tokens), budget))
    if fitting.all():
        return FeasibleSet(lattice, tokens, _unique(tokens, budget))
    index = np.flatnonzero(fitting)
    tokens = tokens[index]
    return FeasibleSet(lattice.take(index), tokens, _unique(tokens, budget))


def _check_data(seq_len: int, budget: Budget) -> None:
    """Raises InputError where the data is less than one sequence, which no compute makes up for."""
    name, factor = scarce_data(budget)
    if name is None or seq_len <= getattr(budget, name) * factor:
        return
    epochs = f" over {factor:g} epochs" if factor > 1 else ""
    raise InputError(
        f"{name} {format_number(getattr(budget, name))}: less than one sequence of {seq_len:,} tokens{epochs}; the "
        f"nearest feasible value is {math.ceil(seq_len / factor)}"
    )


def scarce_data(budget: Budget) -> tuple[str | None, float]:
    """The budget's field that limits data most, and the tokens that each unit of it allows; None where none does."""
    if budget.max_data == float("inf") and budget.max_tokens is None:
        return None, 1.0
    if budget.max_tokens is not None and budget.max_tokens <= budget.max_data:
        return "max_tokens", 1.0
    assert budget.unique_tokens is not None
    return "unique_tokens", budget.max_data / budget.unique_tokens


def fits(lattice: Lattice, budget: Budget, tokens: Array) -> Array:
    """Which designs fit the budget with these tokens (n,)."""
    fitting = np.ones(len(lattice), bool)
    for used, limit in _uses(lattice, budget, tokens).values():
        fitting &= used <= limit
    return fitting


def _unique(tokens: Array, budget: Budget) -> Array:
    return tokens if budget.unique_tokens is None else np.minimum(tokens, budget.unique_tokens)


def _uses(lattice: Lattice, budget: Budget, tokens: Array) -> dict[str, tuple[Array, Any]]:
    """For each limit that is set: what every design uses of it, and the limit."""
    seq_len = lattice.space.seq_len
    served = budget.serve_flops_tokens * lattice.flops_forward
    uses: dict[str, tuple[Array, Any]] = {
        "compute": (seq_len * lattice.flops_train + served, compute_of(lattice, budget))
    }
    if budget.max_params is not None:
        uses["params"] = (lattice.params_total, budget.max_params)
    if budget.max_active is not None:
        uses["active"] = (lattice.params_active, budget.max_active)
    if budget.max_memory is not None:
        uses["memory"] = (memory_bytes(lattice, budget), budget.max_memory)
    if budget.min_tokens_per_active is not None:
        need = budget.min_tokens_per_active * lattice.params_active
        uses["tokens_per_active"] = (need / np.maximum(tokens, 1e-9), 1.0)
    if budget.min_tokens_per_total is not None:
        need = budget.min_tokens_per_total * lattice.params_total
        uses["tokens_per_total"] = (need / np.maximum(tokens, 1e-9), 1.0)
    if budget.max_tokens_per_active is not None:
        most = budget.max_tokens_per_active * lattice.params_active
        uses["most_tokens_per_active"] = (seq_len / most, 1.0)
    return uses


def _infeasible(uses: dict[str, tuple[Array, Any]], budget: Budget) -> str:
    """The message: the single limit whose least change admits a design, or else what each limit needs."""
    with np.errstate(over="ignore"):
        ratio = {name: used / limit for name, (used, limit) in uses.items()}
    moves: dict[str, float] = {}
    for name in ratio:
        others = [ratio[other] <= 1 for other in ratio if other != name]
        free = np.logical_and.reduce(others) if others else np.ones_like(ratio[name], bool)
        if free.any():
            moves[name] = float(ratio[name][free].min())
    if moves:
        name = min(moves, key=lambda key: moves[key])
        return (
            f"{_limit(name, budget)}: no design fits; the nearest feasible value is {_value(name, moves[name], budget)}"
        )
    least = {name: float(values.min()) for name, values in ratio.items()}
    names = [name for name, value in least.items() if value > 1] or list(least)
    parts = (f"{_limit(name, budget)} must be at least {_value(name, least[name], budget)}" for name in names)
    return "budget: no design fits; " + " and ".join(parts)


def _limit(name: str, budget: Budget) -> str:
    """The limit as the user wrote it: its field and value."""
    if name == "compute":
        field = "flops" if budget.flops is not None else "gpus x days, in FLOPs,"
        return f"{field} {format_number(most_compute(budget))}"
    value = getattr(budget, LIMITS[name])
    return f"{LIMITS[name]} {format_bytes(value) if name == 'memory' else format_number(value)}"


def _value(name: str, ratio: float, budget: Budget) -> str:
    """The limit times `ratio`, rounded up to the digits shown."""
    if name == "compute":
        return format_number(most_compute(budget) * ratio * 1.0005, 4)
    value = getattr(budget, LIMITS[name])
    if name in LEAST:
        return format_number(value / ratio)
    return format_bytes(value * ratio * 1.005) if name == "memory" else format_number(value * ratio * 1.0005, 4)


def compute_of(lattice: Lattice, budget: Budget) -> Any:
    """Training FLOPs that the budget buys: a number, or (n,) where utilisation depends on the design."""
    if budget.flops is not None:
        return budget.flops
    device = budget.training_device
    assert device is not None
    assert budget.gpus is not None
    assert budget.days is not None
    share = utilisation(lattice, budget)
    if len(lattice) and not np.any(share > 0):
        raise InputError(
            f"gpus {budget.gpus}: the training of no design fits the memory of these devices ({device.name}) under any "
            "layout tried; give more devices, or an mfu to leave memory out"
        )
    return budget.gpus * budget.days * 86400.0 * device.bf16 * share


def most_compute(budget: Budget) -> float:
    """The compute at the best utilisation, in FLOPs; error messages name it."""
    if budget.flops is not None:
        return budget.flops
    device = budget.training_device
    assert device is not None
    return (budget.gpus or 0) * (budget.days or 0.0) * 86400.0 * device.bf16 * best_utilisation(budget)


def training_price(lattice: Lattice, train_flops: Any, budget: Budget) -> Array:
    """Dollars of training (n,); infinite where it fits no devices, NaN where no price of theirs is known. Raises
    InputError where no hardware is given."""
    device, share = budget.training_device, utilisation(lattice, budget)
    if device is None:
        raise InputError("train_hardware: needed to price the training")
    price = math.nan if budget.training_hour is None else budget.training_hour
    dollars = train_flops / (device.bf16 * np.maximum(share, 1e-12)) / 3600 * price
    return np.where(share > 0, dollars, math.nan if math.isnan(price) else np.inf)
