"""The prior's floor and scales at a table's own bytes per token."""

import numpy as np
import pytest

import moelab
from moelab.fitting.observations import observations
from moelab.fitting.prior import shipped
from moelab.fitting.text_units import BITS_PER_BYTE, bytes_per_token
from moelab.laws import get_law

LAW = get_law("moelab2026")


def table(count: int = 12) -> dict[str, np.ndarray]:
    """Dense runs in nats per token."""
    tokens = np.geomspace(1e9, 3e10, count)
    return {"params_active": np.geomspace(1e7, 1e9, count), "tokens": tokens, "loss": 2 + 40 / tokens**0.2}


def per_byte(rows: dict[str, np.ndarray], size: float) -> dict[str, np.ndarray]:
    return {**rows, "bits_per_byte": rows["loss"] / (size * np.log(2))}


def test_a_token_of_half_the_text_has_half_the_floor() -> None:
    known = shipped("moelab2026")
    assert known is not None
    assert known.bytes_per_token == pytest.approx(4.487, abs=0.001)
    half = known.of_text(known.bytes_per_token / 2)
    moved = [name for name, a, b in zip(known.coefficients, known.mean, half.mean, strict=True) if a != b]
    assert moved == ["E_0", "A", "B"]
    assert np.allclose((known.mean - half.mean)[[known.coefficients.index(name) for name in moved]], np.log(2))
    assert half.sha256 == known.sha256
    assert known.of_text(None) is known


def test_a_fit_in_other_units_is_the_same_fit() -> None:
    rows = per_byte(table(), 2.0)
    nats = moelab.fit(rows, LAW, bootstrap=0)
    bits = moelab.fit(rows, LAW, loss="bits_per_byte", bootstrap=0)
    for name in ("E_0", "A", "B"):
        assert nats.coefficients[name] / bits.coefficients[name] == pytest.approx(2 * np.log(2), rel=1e-3)
    assert nats.coefficients["alpha"] == pytest.approx(bits.coefficients["alpha"], rel=1e-3)
    assert any("from 4.49 to 2 bytes per token" in note for note in nats.notes)
    assert any("to bits per byte" in note for note in bits.notes)


def test_the_column_is_used_where_it_shows_one_tokenizer() -> None:
    rows = table()
    assert bytes_per_token(rows, rows["loss"], "loss") == (None, "")
    assert bytes_per_token(rows, rows["loss"], "bits_per_byte") == (BITS_PER_BYTE, "")
    assert bytes_per_token(rows, rows["loss"], "eval/bpb") == (BITS_PER_BYTE, "")  # the names that checks know
    renamed = {**rows, "val_bpb": per_byte(rows, 2.0)["bits_per_byte"]}
    assert bytes_per_token(renamed, rows["loss"], "loss") == (pytest.approx(2.0), "")
    gaps = per_byte(rows, 2.0)
    gaps["bits_per_byte"][[1, 3]] = np.nan, 0.0
    assert bytes_per_token(gaps, rows["loss"], "loss") == (pytest.approx(2.0), "")
    part = observations(per_byte(rows, 2.0), LAW).take(np.arange(4))
    assert part.bytes_per_token == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("size", "why"),
    [
        (np.repeat([2.0, 4.5], 6), "2 to 4.5 bytes per token"),
        (1.0, "1 bytes per token; is it in another unit"),
        (1 / np.log(2), "1.44 bytes per token; is it in another unit"),
        (np.nan, "no row holds a positive number"),
    ],
)
def test_a_column_that_cannot_be_bits_per_byte_is_named(size, why: str) -> None:
    rows = per_byte(table(), size)
    found, note = bytes_per_token(rows, rows["loss"], "loss")
    assert found is None
    assert why in note
    fitted = moelab.fit(rows, LAW, bootstrap=0)
    assert any(why in note for note in fitted.notes)


def test_without_the_column_a_note_names_what_is_assumed() -> None:
    assert any("tokens are taken to hold 4.49 bytes" in note for note in moelab.fit(table(), LAW, bootstrap=0).notes)
    assert not any("bytes" in note for note in moelab.fit(table(36), LAW, bootstrap=0, prior="none").notes)
