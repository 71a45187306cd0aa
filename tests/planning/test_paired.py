"""Differences of predicted cost within the paired error are ties."""

import math

import numpy as np
import pytest

from moelab.planning import Budget, Space
from moelab.planning.chosen_laws import laws_of
from moelab.planning.given_laws import predictors_of
from moelab.planning.lattice import enumerate_designs
from moelab.planning.paired import EXACT, PairedErrors, known_excess, unknown_share
from moelab.planning.search import search
from moelab.serving.training_calibration import training_calibration

SPACE = Space(
    d_model=(2048, 3072), n_layers=(24, 32), head_dim=(128,), n_experts=(16, 128), top_k=(1, 8), n_shared_experts=(0,),
    n_dense_layers=(0,), kinds=("moe",), vocab_size=32000,
)  # fmt: skip
DEVICES = {"gpus": 64, "days": 10, "train_hardware": "h100"}


def test_errors_of_two_models_add_in_quadrature_and_shared_ones_cancel() -> None:
    found = PairedErrors.of(Budget.parse(DEVICES))
    assert found.training == pytest.approx(1.44 * math.sqrt(2) * training_calibration().residual, rel=0.06)
    assert PairedErrors.of(Budget(flops=1e21)) == EXACT
    assert PairedErrors.of(Budget.parse(DEVICES | {"mfu": 0.4})).training == 0


def test_a_difference_is_a_tie_up_to_the_half_width_and_known_beyond() -> None:
    slower = np.array([0.0, 0.2, 0.5])
    assert unknown_share(slower, 0.3).tolist() == [0.0, 0.2, 0.3]
    assert known_excess(slower, 0.3).tolist() == pytest.approx([0.0, 0.0, 0.2])
    assert (unknown_share(slower, 0.3) + known_excess(slower, 0.3)).tolist() == pytest.approx(slower.tolist())


def test_slower_designs_are_behind_by_what_is_known_alone() -> None:
    """The dumb way: log(C/C') of each design less the part of its slowness that the paired error explains."""
    ranking = search(enumerate_designs(SPACE), Budget.parse(DEVICES), predictors_of(laws_of(["ludziejewski2025"])))
    assert ranking.slower is not None
    excess = ranking.curves[0].log_excess(ranking.mean(ranking.ensemble[0]))
    expected = excess - np.minimum(ranking.slower, ranking.paired.training)
    assert ranking.slower.min() == 0
    assert ranking.slower.max() > 0.1
    covered = np.isfinite(expected)
    assert ranking.log_excess[covered] == pytest.approx(expected[covered])
    assert np.isinf(ranking.log_excess[~covered]).all()
    assert ranking.best == int(np.nanargmin(expected))


def test_with_a_stated_utilisation_nothing_is_a_tie() -> None:
    budget = Budget.parse(DEVICES | {"mfu": 0.4})
    ranking = search(enumerate_designs(SPACE), budget, predictors_of(laws_of(["ludziejewski2025"])))
    loss = ranking.mean(ranking.ensemble[0])
    assert ranking.paired.training == 0
    assert ranking.best == int(np.nanargmin(loss))
