"""Predictions and decisions across a law's floor."""

from dataclasses import replace

import numpy as np
import pytest

import moelab
from moelab.architecture import count_flops, load_model
from moelab.cli import main
from moelab.fitting import save_fits
from moelab.fitting.floor import SWEEP, across_floor
from moelab.fitting.widening import AS_DRAWN
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
    losses = replace(fitted, widening=AS_DRAWN).draw_losses(DESIGNS)  # the drift has no part in the floor
    for part, rows in zip(parts, np.array_split(order, 5), strict=True):
        assert part.floor == pytest.approx(np.median(floors[rows]))
        assert part.losses == pytest.approx(losses[rows].mean(axis=0).tolist())
        assert part.lowest[0] == pytest.approx(np.mean(losses[rows, 0] <= losses[rows, 1]))
        assert sum(part.lowest) == pytest.approx(1)
    assert [part.floor for part in parts] == sorted(part.floor for part in parts)
    assert [part.at for part in parts] == ["p10", "p30", "p50", "p70", "p90"]
    for part in parts:  # the median of a fifth is that quantile of the whole
        assert part.floor == pytest.approx(np.quantile(floors, float(part.at[1:]) / 100), rel=0.01)


def test_without_a_posterior_the_floor_is_swept_and_the_centre_stays(fitted) -> None:
    plain = replace(fitted, draws=np.empty((0, len(fitted.law.coefficients))))
    parts = across_floor(plain, DESIGNS)
    floor = fitted.coefficients["E_0"]
    assert [part.floor for part in parts] == pytest.approx([factor * floor for factor in SWEEP])
    assert [part.at for part in parts] == ["0.8x", "0.9x", "1x", "1.1x", "1.2x"]
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
    first = found.to_dict()["predictions"]["ludziejewski2025"]["floor"][0]
    assert first == {"at": "0.8x", "floor": parts[0].floor, "losses": list(parts[0].losses), "lowest": [1.0, 0.0]}
    flops = [count_flops(load_model(name), 4096).train for name in ("olmoe-1b-7b", "llama3-8b")]
    assert found.tokens == pytest.approx((20e9, 20e9 * flops[0] / flops[1]))
    assert found.to_dict()["tokens"] == list(found.tokens)
    with pytest.raises(moelab.InputError, match="against: needs a config"):
        moelab.predict("hoffmann2022", params_total=1e9, tokens="20B", against="llama3-8b")


def test_the_command_names_quantiles_and_both_designs(fitted, tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    place = tmp_path / "fit.json"
    save_fits({"hoffmann2022": fitted}, place)
    lines = printed(capsys, str(place), "--config", "llama3-8b", "--tokens", "20B", "--against", "llama3-70b")
    parts = moelab.predict(place, "llama3-8b", tokens="20B", against="llama3-70b").only.floor
    at = lines.index("Loss by the floor (fifths of its posterior, p10 to p90)")
    assert lines[at + 1].split() == ["p10", "p30", "p50", "p70", "p90"]
    floors, first, second, better = lines[at + 2 : at + 6]
    assert floors.split() == ["hoffmann2022:", "floor", *(f"{part.floor:.3f}" for part in parts)]
    assert first.startswith("hoffmann2022: loss of llama3-8b on 20B tokens ")
    assert second.startswith("hoffmann2022: loss of llama3-70b on 2.")
    assert second.split()[-5:] == [f"{part.losses[1]:.4f}" for part in parts]
    assert better.startswith("hoffmann2022: draws in which llama3-8b is better ")
    assert better.split()[-5:] == [f"{part.lowest[0]:.0%}" for part in parts]
    assert lines[at + 6] == "llama3-70b takes as many training FLOPs as llama3-8b."


def test_the_command_labels_a_swept_floor(capsys, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    joint = ("ludziejewski2025", "--set", "params_active=1e9", "--set", "tokens=2e10", "--set", "n_experts=8")
    lines = printed(capsys, *joint)
    at = lines.index("Loss by the floor (swept from 0.8x to 1.2x)")
    assert lines[at + 1].split() == ["0.8x", "0.9x", "1x", "1.1x", "1.2x"]
    assert lines[at + 3].startswith("ludziejewski2025: loss ")
    lines = printed(
        capsys, "ludziejewski2025", *["--config", "olmoe-1b-7b", "--tokens", "20B", "--against", "llama3-8b"]
    )
    assert any(
        line.split() == ["ludziejewski2025:", "olmoe-1b-7b", "is", "better", "yes", "yes", "yes", "yes", "yes"]
        for line in lines
    )
    lines = printed(capsys, "hoffmann2022", *["--config", "llama3-8b", "--tokens", "20B", "--against", "llama3-70b"])
    assert "note: against: no law here has a floor with draws or a known range, so nothing is compared" in lines


def printed(capsys, *words: str) -> list[str]:
    """The lines that `moelab predict` prints."""
    with pytest.raises(SystemExit) as stop:
        main(["predict", *words])
    assert not stop.value.code
    return [line.rstrip() for line in capsys.readouterr().out.splitlines()]


def test_which_design_is_better_counts_the_error_between_the_kinds() -> None:
    """Far beyond the runs a MoE that is ahead in every draw is not certain to be better; its losses are the draws'."""
    law = get_law("ludziejewski2025")
    rng = np.random.default_rng(2)
    table = {"params_active": np.geomspace(1e7, 1e9, 30), "tokens": np.tile([2e9, 8e9, 3e10], 10)}
    table["expert_ratio"] = np.tile([1.0, 8.0], 15)
    loss = law.loss(None, table) * np.exp(0.002 * rng.standard_normal(30))
    known = moelab.fit({**table, "loss": loss}, law, bootstrap=60, starts=16)
    far = {"params_active": [1e11, 1e11], "tokens": [3e12, 3e12], "expert_ratio": [8.0, 1.0]}
    drawn = across_floor(replace(known, widening=AS_DRAWN), far)
    erring = across_floor(known, far)
    assert [part.losses for part in erring] == [part.losses for part in drawn]
    assert all(part.lowest[0] == 1.0 for part in drawn)
    assert all(0.5 < part.lowest[0] < 0.99 for part in erring)
