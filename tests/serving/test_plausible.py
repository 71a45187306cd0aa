"""Wrong units and counts in a table of measurements are refused or noted, never fitted without a message."""

from typing import Any

import numpy as np
import pytest

from moelab.errors import InputError
from moelab.serving.calibrate import calibrate
from moelab.serving.calibration import shipped, shipped_for
from moelab.serving.coefficients import Coefficients
from moelab.serving.fit_rows import Fitted
from moelab.serving.measured import MeasuredRows, find_model, parse_measured
from moelab.serving.plausible import check_rows, notes_on

SETUPS = [("llama3-70b", 8), ("llama3-70b", 64), ("qwen3-30b-a3b", 8), ("qwen3-30b-a3b", 64)]


def table(most: bool, factor: float, gpus: int = 8) -> MeasuredRows:
    """Rows as the shipped calibration predicts them, times a factor."""
    cells: list[dict[str, Any]] = [
        {
            "model": model, "hardware": "h200", "precision": "fp8", "engine": "sglang", "gpus": str(gpus),
            "input_length": str(1024 * batch), "output_length": "512", "concurrency": "max" if most else str(batch),
            "median_tpot_s": "1", "output_tokens_per_s_per_gpu": "1", "date": "2026-05",
        }
        for model, batch in SETUPS
    ]  # fmt: skip
    fitted = Fitted(shipped_for("h200", "sglang").coefficients, {}, {}, {})
    values = fitted.predict(parse_measured(cells, "rows", find_model).rows)
    column = "output_tokens_per_s_per_gpu" if most else "median_tpot_s"
    rows = [{**row, column: str(value * factor)} for row, value in zip(cells, values.tolist(), strict=True)]
    return parse_measured(rows, "rows", find_model)


@pytest.mark.parametrize(
    ("most", "factor", "message"),
    [
        (False, 1000.0, "row 2: median_tpot_s: must be in seconds, not milliseconds; .* times slower"),
        (False, 0.001, "row 2: median_tpot_s: the data sheet of h200 allows at least .* got"),
        (True, 8.0, r"row 2: output_tokens_per_s_per_gpu: .* at most .*; of one device, not of all 8"),
        (True, 0.001, "row 2: output_tokens_per_s_per_gpu: must be in output tokens a second of one device"),
    ],
)
def test_what_no_device_reaches_is_refused(most: bool, factor: float, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        calibrate(table(most, factor))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("model", "gpus", "prompt", "output", "seconds"),
    [("llama3-70b", 8, 100_000, 100, 0.0078), ("llama3-8b", 1, 32_000, 128, 0.0065)],
)
def test_a_lone_request_with_a_long_prompt_is_no_impossible_row(
    model: str, gpus: int, prompt: int, output: int, seconds: float
) -> None:
    """Its prompt is over before its first token, and median_tpot_s is the time between tokens."""
    cells = {
        "model": model, "hardware": "h200", "precision": "fp8", "engine": "vllm", "gpus": str(gpus),
        "input_length": str(prompt), "output_length": str(output), "concurrency": "1", "median_tpot_s": str(seconds),
        "date": "2026-05",
    }  # fmt: skip
    check_rows(parse_measured([cells], "rows", find_model))


def test_rows_far_from_the_prediction_are_noted() -> None:
    rows = table(False, 4.0)
    (note,) = notes_on(rows, np.array([row.value / 4 for row in rows.rows]))
    assert note.startswith("median_tpot_s: measured is 4.0 times slower")
    assert note.endswith("check that it is seconds")
    (note,) = notes_on(table(True, 1.0), np.array([row.value / 4 for row in table(True, 1.0).rows]))
    assert note.startswith("output_tokens_per_s_per_gpu: measured is 4.0 times faster")
    assert notes_on(rows, np.array([row.value / 2 for row in rows.rows])) == []


def test_rows_of_the_shipped_fit_pass() -> None:
    known = Coefficients.parse(shipped()["coefficients"], "calibrations")
    rows = table(True, 1.0).rows
    assert np.isfinite(Fitted(known, {}, {}, {}).predict(rows)).all()
    result = calibrate(table(True, 1.0))
    assert result.notes == ()
    assert result.to_dict()["notes"] == []
