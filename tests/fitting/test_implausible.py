"""Predictions that mean nothing carry a note: other units, swapped values, too many in use, worse than guessing."""

import numpy as np
import pytest

import moelab
from moelab.fitting.implausible import guessing_loss, meaningless, value_notes


@pytest.mark.parametrize(
    ("values", "note"),
    [
        ({"params_total": 70, "tokens": 1.4}, "params_total: 70 looks like "),
        ({"params_total": 70, "tokens": 1.4}, "tokens: 1.4 looks like billions"),
        ({"params_total": 70e9, "tokens": 1400.0}, "tokens: 1400 looks like billions"),
        ({"params_total": 1.4e12, "tokens": 70e9}, "fewer tokens than parameters (0.05 per parameter of params_total)"),
        ({"params_active": 3e9, "params_total": 1e9}, "params_active is above params_total (3e+09 of 1e+09)"),
        ({"n_experts": 8, "top_k": 16}, "top_k is above n_experts (16 of 8)"),
    ],
)
def test_values_that_no_design_has_are_noted(values: dict[str, float], note: str) -> None:
    assert any(note in line for line in value_notes(values)), value_notes(values)


@pytest.mark.parametrize(
    "values",
    [
        {"params_total": 70e9, "tokens": 1.4e12},
        {"params_active": 3.3e9, "params_total": 30.5e9, "n_experts": 128, "top_k": 8, "tokens": 36e12},
        {"params_total": 1e6, "tokens": 2e6},
        {"params_total": 46.7e9, "params_active": 12.9e9, "tokens": 2e9},
        {"compute": 1e21},
    ],
)
def test_designs_of_any_size_have_no_note(values: dict[str, float]) -> None:
    assert value_notes(values) == []


def test_a_published_law_notes_swapped_units_and_the_loss_that_follows() -> None:
    notes = moelab.predict("hoffmann2022", params_total=70, tokens=1.4).notes
    assert "meaningless by hoffmann2022: the loss is worse than guessing, ln(vocab_size)" in notes
    assert any(note.startswith("tokens: 1.4 looks like") for note in notes)
    assert moelab.predict("hoffmann2022", params_total="70B", tokens="1.4T").notes == ()


def test_a_config_on_a_thousand_tokens_is_noted() -> None:
    notes = moelab.predict("ludziejewski2025", "olmoe-1b-7b", tokens=1000).notes
    assert any(note.startswith("tokens: 1000 looks like") for note in notes)
    assert moelab.predict("ludziejewski2025", "olmoe-1b-7b", tokens="5T").notes == ()


def test_more_active_than_total_parameters_are_noted() -> None:
    found = moelab.predict("ludziejewski2025", params_active=3e9, params_total=1e9, n_experts=8, tokens=1e11)
    assert any("params_active is above params_total" in note for note in found.notes)


def test_a_fit_in_billions_takes_billions_without_a_note_on_them() -> None:
    """Its own note on units stands; the values are in its unit, and one far outside its runs has no support."""
    size, data = (axis.ravel() for axis in np.meshgrid(np.geomspace(0.1, 3, 5), np.geomspace(2, 60, 5)))
    loss = 1.7 + 0.36 / size**0.34 + 1.1 / data**0.28
    table = {"params_total": size, "tokens": data, "loss": loss}
    fitted = moelab.fit(table, "hoffmann2022", bootstrap=0, prior="none")
    notes = moelab.predict(fitted, params_total=1.0, tokens=20.0).notes
    assert [note for note in notes if not note.startswith("the fit was given another unit")] == []
    unit = [note for note in notes if note.startswith("the fit was given another unit: tokens")]
    assert unit
    assert set(unit) <= set(fitted.optimum(1e3).notes)
    far = moelab.predict(fitted, params_total=1e9, tokens=2e10).notes
    assert any("a factor of 1,000 or more outside its runs" in note for note in far)


def test_a_leverage_a_thousand_times_out_of_range_is_noted_as_a_loss_is() -> None:
    """tian2025's runs end at 3e20 FLOPs."""
    for law in ("tian2025", "abnar2025"):
        found = moelab.predict(law, "deepseek-v3", tokens="14.8T")
        assert found.only.extrapolation > 3
        assert f"meaningless by {law}: a factor of 1,000 or more outside its runs" in found.notes
    assert moelab.predict("tian2025", "olmoe-1b-7b", tokens="1T").notes == ()


def test_the_loss_of_guessing_is_that_of_the_vocabulary() -> None:
    assert guessing_loss(512, published=False) == pytest.approx(np.log(512))
    assert guessing_loss(512) == pytest.approx(np.log(65_536))
    lines = meaningless({"a": 7.0, "b": 6.0, "c": 2.0}, {"a": 6.2, "b": 6.2}, {"b": 0.5, "c": 3.1})
    assert lines == [
        "meaningless by a: the loss is worse than guessing, ln(vocab_size)",
        "meaningless by c: a factor of 1,000 or more outside its runs",
    ]
    far = meaningless({}, {}, {"a": 3.1, "b": 4.0, "c": 2.9})
    assert far == ["meaningless by a, b: a factor of 1,000 or more outside their runs"]
