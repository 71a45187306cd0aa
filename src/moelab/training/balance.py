"""Balancing over the whole optimiser batch, however it is cut into forward passes and processes.

The balance loss E sum_i f_i p_i multiplies the shares f of the choices by the mean probabilities p, so the mean of the
losses of parts is not the loss of the whole. The gradient flows through p alone, and p is a mean over tokens: with
the f of the whole batch in every part, the parts' gradients average to that of the whole, exactly.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from moelab.model import LanguageModel
from moelab.model.router import TopKRouter
from moelab.runs import TrainConfig
from moelab.training.processes import World


def whole_counts(
    model: LanguageModel, train: TrainConfig, pieces: list[Tensor], everyone: World
) -> Callable[[Tensor], Tensor] | None:
    """What turns the choices (layers, E) of one piece into those of the whole batch; None where no one needs it.

    With a single piece the processes add up their counts in the forward pass; with several the choices must be known
    before the first backward pass, which takes a forward pass without gradients (and without the head) for each.
    """
    if train.balance_over != "batch" or not _balances(model):
        return None
    if len(pieces) == 1:
        return everyone.sum if everyone.size > 1 else None
    counts = everyone.sum(torch.stack([model.balance_counts(piece) for piece in pieces]).sum(0))
    return lambda _: counts


def sum_loads(model: LanguageModel, everyone: World) -> None:
    """Let loss-free balancing see the load of all processes."""
    if everyone.size == 1:
        return
    for module in model.modules():
        if isinstance(module, TopKRouter) and module.config.bias_update:
            everyone.sum(module.load)


def _balances(model: LanguageModel) -> bool:
    moe = model.config.moe
    return moe is not None and moe.router == "token_choice" and moe.balance_loss > 0
