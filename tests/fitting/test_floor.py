"""Predictions and decisions across a law's floor."""

from dataclasses import replace

import numpy as np
import pytest

import moelab
from moelab.fitting.floor import SWEEP, across_floor
from moelab.laws import get_law

DESIGNS = {"params_total": np.array([1e9, 4e9]), "tokens": np.array([8e10, 2e10])}


@pytest.fixture(scope="module")
def fitted():
    law = get_law("hoffmann2022")
    rng = np.random.default_rng(0)
    n = 40
    runs = {
        "params_total": np.exp(rng.uniform(np.log(1e7), np.log(1e9), n)),
        "tokens": np.exp(rng.uniform(np.log(1e9), np.log(1e11), n)),
    }
    loss = law.loss(None, runs) * np.exp(0.01 * rng.standard_normal(n))
    return moelab.fit({**runs, "loss": loss}, law, bootstrap=100, starts=32)


def test_parts_of_the_posterior_are_a_dumb_loop(fitted) -> None:
    parts = across_floor(fitted, DESIGNS)
    floors = fitted.draws[:, fitted.law.coefficients.index("E_0")]
    order = np.argsort(floors, kind="stable")
    losses = fitted.draw_losses(DESIGNS)
    for part, rows in zip(parts, np.array_split(order, 5), strict=True):
        assert part.floor == pytest.approx(np.median(floors[rows]))
        assert part.losses == pytest.approx(losses[rows].mean(axis=0).tolist())
        assert part.lowest[0] == pytest.approx(np.mean(losses[rows, 0] <= losses[rows, 1]))
        assert sum(part.lowest) == pytest.approx(1)
    assert [part.floor for part in parts] == sorted(part.floor for part in parts)


def test_without_a_posterior_the_floor_is_swept_and_the_centre_stays(fitted) -> None:
    plain = replace(fitted, draws=np.empty((0, len(fitted.law.coefficients))))
    parts = across_floor(plain, DESIGNS)
    floor = fitted.coefficients["E_0"]
    assert [part.floor for part in parts] == pytest.approx([factor * floor for factor in SWEEP])
    low, high = fitted.ranges["params_total"], fitted.ranges["tokens"]
    centre = {"params_total": [np.sqrt(low[0] * low[1])], "tokens": [np.sqrt(high[0] * high[1])]}
    middle = across_floor(plain, centre)
    assert np.ptp([part.losses[0] for part in middle]) < 1e-12
    assert parts[2].losses == pytest.approx(fitted.predict(DESIGNS).value.tolist())


def test_a_law_without_floor_or_range_gives_none() -> None:
    clark = {"params_active_non_embedding": [1e9], "expert_ratio": [8.0]}
    assert across_floor(get_law("clark2022-sbase"), clark) == []
    assert (
        across_floor(get_law("besiroglu2024"), DESIGNS) == [] or get_law("besiroglu2024").ranges["tokens"] is not None
    )


def test_predict_shows_it_and_decides_at_equal_compute() -> None:
    found = moelab.predict("ludziejewski2025", "olmoe-1b-7b", tokens="20B", against="llama3-8b")
    parts = found.only.floor
    assert len(parts) == len(SWEEP)
    assert all(len(part.losses) == 2 and part.lowest[0] == 1.0 for part in parts)
    assert found.to_dict()["predictions"]["ludziejewski2025"]["floor"][0]["losses"] == list(parts[0].losses)
    with pytest.raises(moelab.InputError, match="against: needs a config"):
        moelab.predict("hoffmann2022", params_total=1e9, tokens="20B", against="llama3-8b")
