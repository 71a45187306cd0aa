"""The dense model that reaches a MoE's loss on the same tokens, by every law that compares dense and MoE models.

Laws see a dense model's size, not its depth. So one dense shape with any number of layers gives the loss against the
size; the model itself is the dense baseline of the size that the laws find.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from moelab.architecture import ModelConfig, Shape, count_parameters
from moelab.errors import InputError
from moelab.laws import Design
from moelab.planning.baselines import Part, dense_baseline
from moelab.planning.predictors import Predictor

DEPTHS, DEEPEST = 400, 64
"""Depths that are tried, and the largest one over the shape's own."""

ROUNDS = 2
"""Shapes tried: of the active parameters, then of the size found with it."""


def equal_loss_dense(part: Part, seq_len: int, predictors: Sequence[Predictor]) -> tuple[ModelConfig, dict[str, float]]:
    """The dense model of the median size by the laws, and that size (all parameters) by law.

    `part` is the MoE, its tokens and the distinct ones, which are the dense model's too.

    Raises InputError where no law describes both, or none finds a dense model of this loss.
    """
    model, tokens, unique = part
    design = Design.of(model, tokens, seq_len, min(unique, tokens))
    losses = [(each, float(np.atleast_1d(each.loss(each.read(design)))[0])) for each in predictors if _able(each)]
    targets = [(each, loss) for each, loss in losses if np.isfinite(loss)]
    size = float(count_parameters(model).params_active)
    sizes: dict[str, float] = {}
    for _ in range(ROUNDS):
        shape = _depths(dense_baseline(model, round(size)))
        found = {each.id: _size(each, loss, shape, part, seq_len) for each, loss in targets}
        sizes = {law: value for law, value in found.items() if value is not None}
        if not sizes:
            raise InputError(
                "equal loss: no law finds a dense model of this loss; it needs a --law that covers this MoE and dense "
                "models"
            )
        size = float(np.exp(np.median(np.log(list(sizes.values())))))
    return dense_baseline(model, round(size)), sizes


def _able(predictor: Predictor) -> bool:
    """Whether a law's loss of a MoE stands beside its loss of a dense model on as many tokens."""
    return predictor.compares_dense_with_moe and "tokens" in predictor.law.variables


def _depths(config: ModelConfig) -> Shape:
    """The shape with every number of layers (n,), all of which see everything."""
    depths = np.unique(np.geomspace(1, DEEPEST * config.n_layers, DEPTHS).astype(np.int64))
    return replace(Shape.of(config), n_layers=depths, window=0, n_window_layers=0, n_chunk_layers=0)


def _size(predictor: Predictor, target: float, shape: Shape, part: Part, seq_len: int) -> float | None:
    """All parameters of the dense model at which a law predicts the loss; None where no depth has it."""
    _, tokens, unique = part
    total = np.asarray(count_parameters(shape).params_total, float)
    data = np.full(total.shape, float(tokens))
    reading = predictor.read(Design.of(shape, data, seq_len, np.minimum(data, unique)))
    loss = np.asarray(predictor.loss(reading), float)
    known = np.isfinite(loss)
    loss, total = loss[known], total[known]
    if not len(loss) or not loss.min() <= target <= loss.max() or np.any(np.diff(loss) > 0):
        return None
    return float(np.exp(np.interp(target, loss[::-1], np.log(total)[::-1])))
