"""Runs of several seeds: their mean is one design's loss, and the noise is pooled over repeated designs."""

import math
from collections.abc import Callable

import pytest

from moelab.studies.seeds import SeedNoise, Trained, mean_designs, seed_noise

Make = Callable[..., Trained]


def test_a_design_has_the_mean_loss_of_its_seeds(trained: Make) -> None:
    again = trained(3.2, seed=1)
    designs = mean_designs([trained(3.0), trained(2.0, d_ff=64), again, again, trained(None, seed=2)])
    assert [(design.loss, design.seeds) for design in designs] == [(pytest.approx(3.1), 2), (2.0, 1)]
    assert designs[0].config.train.seed == 0


def test_noise_is_the_pooled_deviation_of_repeats(trained: Make) -> None:
    runs = [
        trained(3.0),
        trained(3.2, seed=1),
        trained(2.0, d_ff=64),
        trained(2.1, seed=5, d_ff=64),
        trained(9.0, d_ff=8),
    ]
    noise = seed_noise(runs)
    assert noise is not None
    assert noise.deviation == pytest.approx(math.sqrt((0.02 + 0.005) / 2))
    assert noise.freedom == 2


def test_the_spread_follows_student() -> None:
    assert SeedNoise(deviation=1.0, freedom=2).spread() == pytest.approx(1.8856 * math.sqrt(2), rel=1e-4)
    assert SeedNoise(deviation=1.0, freedom=10**6).spread(seeds=2) == pytest.approx(1.2816, rel=1e-3)


def test_no_repeats_no_noise(trained: Make) -> None:
    assert seed_noise([trained(3.0), trained(2.9, d_ff=64), trained(None, seed=1)]) is None
