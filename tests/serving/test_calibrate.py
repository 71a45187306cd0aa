"""The fit to measured rows: coefficients that made the rows come back, bad rows are named, the file is read."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from moelab.errors import InputError
from moelab.serving import load_hardware
from moelab.serving.calibrate import calibrate
from moelab.serving.calibration import shipped, shipped_for
from moelab.serving.fit_rows import FIXED, Fitted, error_of, fit_rows
from moelab.serving.measured import MeasuredRows, find_model, parse_measured, plain_name, read_measured

BASE = {"model": "llama3-8b", "hardware": "h200", "precision": "fp8", "engine": "sglang", "gpus": "1", "date": "2026"}


def cells(**more: Any) -> dict[str, str | None]:
    lengths = {"input_length": "1024", "output_length": "512", "concurrency": "8", "median_tpot_s": "0.01"}
    return {**BASE, **lengths, **{name: str(value) for name, value in more.items()}}


@pytest.fixture(scope="module")
def rows() -> MeasuredRows:
    table = [
        cells(model=model, concurrency=batch, input_length=prompt)
        for model in ("llama3-8b", "qwen3-30b-a3b")
        for batch in (1, 64)
        for prompt in (512, 4096)
    ]
    return parse_measured(table, "rows", find_model)


def made(rows: MeasuredRows, kernel: float) -> list[dict[str, str | None]]:
    """The same rows as a machine with other fixed costs would give."""
    own = shipped_for("h200", "sglang").coefficients.model_copy(update={"kernel": kernel})
    seconds = Fitted(own, {}, {}, {}).predict(rows.rows)
    return [
        cells(
            model=row.model,
            concurrency=row.traffic.batch,
            input_length=row.traffic.prompt,
            median_tpot_s=value,
        )
        for row, value in zip(rows.rows, seconds, strict=True)
    ]


def test_rows_of_another_machine_are_found_again(rows: MeasuredRows) -> None:
    table = parse_measured(made(rows, 9e-6), "rows", find_model)
    fitted = fit_rows(table, {}, {n: (v, 1.0) for n, v in shipped()["coefficients"].items() if n not in FIXED})
    ratio = fitted.predict(table.rows) / np.array([row.value for row in table.rows])
    assert np.abs(ratio - 1).max() < 0.02
    assert fitted.coefficients.kernel * fitted.engines["sglang"] == pytest.approx(9e-6, rel=0.15)
    low, high = fitted.intervals["kernel"]
    assert low < fitted.coefficients.kernel < high


def test_the_file_is_read_as_hardware(rows: MeasuredRows, tmp_path: Path) -> None:
    table = made(rows, 9e-6)
    path = tmp_path / "rows.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(table[0]))
        writer.writeheader()
        writer.writerows(table)
    result = calibrate(read_measured(path, find_model))
    result.hardware.to_yaml(tmp_path / "mine.yaml")
    found = load_hardware(str(tmp_path / "mine.yaml")).calibrated()
    assert found == result.hardware.calibration
    assert (found.id, found.n_rows) == ("h200/sglang", 8)
    assert str(found.held_out_by).startswith("model in the shipped rows (2 models here, ")
    assert found.error is not None
    assert found.error < 0.2
    assert result.to_dict()["coefficients"]["max_batch"]["low"] is None


def test_rows_of_one_model_are_no_surer_of_others_than_the_shipped_rows(rows: MeasuredRows) -> None:
    known, table = shipped()["errors"]["none"], [row for row in made(rows, 4e-6) if row["model"] == "llama3-8b"]
    found = calibrate(parse_measured(table, "rows", find_model)).hardware.calibration
    assert found is not None
    assert (found.error, found.spread) == (known["error"], known["spread"])
    assert str(found.held_out_by).startswith("model in the shipped rows (1 model here, ")
    assert str(found.held_out_by).endswith("% by concurrency)")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"median_tpot_s": "fast"}, "rows, row 2: median_tpot_s: expected a number above 0"),
        ({"median_tpot_s": "-1"}, "rows, row 2: median_tpot_s"),
        ({"model": "no-such-model"}, "rows, row 2: .*no-such-model"),
        ({"hardware": "h1000"}, "rows, row 2: hardware: no such device"),
        ({"gpus": "1.5"}, "rows, row 2: gpus: expected a whole number"),
        ({"precision": "fp2"}, "rows, row 2: precision"),
        ({"engine": "mine"}, "rows, row 2: engine"),
        ({"input_length": ""}, "rows, row 2: input_length: is empty"),
        ({"concurrency": "max"}, "rows, row 2: output_tokens_per_s_per_gpu: is empty"),
    ],
)
def test_bad_rows_are_named(more: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        parse_measured([cells(**more)], "rows", find_model)
    assert "\n" not in str(caught.value)


def test_columns_and_setups_that_are_missing() -> None:
    with pytest.raises(InputError, match="rows: columns are missing: hardware, precision"):
        parse_measured([{"model": "llama3-8b"}], "rows", find_model)
    with pytest.raises(InputError, match="a fit needs at least 3 setups, got 1"):
        calibrate(parse_measured([cells()] * 5, "rows", find_model))
    with pytest.raises(InputError, match="no row without speculative"):
        parse_measured([cells(speculative="mtp")], "rows", find_model)


def test_the_newest_of_a_setup_counts() -> None:
    table = [cells(date="2026-01"), cells(date="2026-05", median_tpot_s="0.02"), cells(date="2026-03")]
    assert [row.value for row in parse_measured(table, "rows", find_model).newest().rows] == [0.02]


def test_an_engine_gets_faster_with_its_releases() -> None:
    own = shipped_for("h200", "sglang").coefficients
    table = [cells(date=date, concurrency=batch) for date in ("2026-01", "2026-07") for batch in (1, 64)]
    rows = parse_measured(table, "rows", find_model).rows
    assert [row.year for row in rows] == pytest.approx([2026 + 0.5 / 12] * 2 + [2026 + 6.5 / 12] * 2)
    old, _, new, _ = Fitted(own, {}, {}, {}, progress=0.4, newest=2026.5).predict(rows)
    faster, _, same, _ = Fitted(own.model_copy(update={"kernel": own.kernel * np.exp(0.2)}), {}, {}, {}).predict(rows)
    assert old / new > 1.05
    assert old == pytest.approx(faster, rel=0.02)
    assert same == pytest.approx(faster)


def test_dates() -> None:
    years = {"2026-05-17": 2026 + 4.5 / 12, "2026": 2026.5, "2025/26": 2026.0, "": None, "spring": None}
    for date, year in years.items():
        found = parse_measured([cells(date=date)], "rows", find_model).rows[0].year
        assert found is None if year is None else found == pytest.approx(year)


def test_nvidia_tables_are_read_as_they_were_made() -> None:
    """Captured graphs and numbers of requests as documented; the cache of mxfp4 models in 16 bits on Hopper."""
    offline = {
        "concurrency": "max",
        "median_tpot_s": "",
        "output_tokens_per_s_per_gpu": "1000",
        "output_length": "1024",
    }
    offline |= {"engine": "trtllm-bench", "model": "gpt-oss-20b", "precision": "mxfp4/fp8"}
    hopper = parse_measured([cells(**offline)], "rows", find_model).rows[0]
    assert (hopper.requests, hopper.traffic.kv_precision, hopper.engine) == (3000, "bf16", "tensorrt-llm")
    assert hopper.traffic.graph_sizes is not None
    assert {384, 512, 1024} < set(hopper.traffic.graph_sizes)
    stated = cells(**offline | {"requests": 64, "graph_sizes": "8,64", "hardware": "b200"})
    own = parse_measured([stated], "rows", find_model).rows[0]
    assert (own.requests, own.traffic.graph_sizes, own.traffic.kv_precision) == (64, (8, 64), "fp8")
    steady = parse_measured([cells(**offline | {"engine": "trt"})], "rows", find_model).rows[0]
    assert (steady.requests, steady.traffic.graph_sizes) == (None, None)


def test_requests_queued_at_once_are_served_in_waves() -> None:
    own = shipped_for("h200", "tensorrt-llm").coefficients
    offline = {"concurrency": "max", "median_tpot_s": "", "output_tokens_per_s_per_gpu": "1000", "engine": "trt"}
    offline |= {"input_length": "128", "output_length": "128"}  # short enough for the engine's largest batch

    def rate(**more: Any) -> float:
        rows = parse_measured([cells(**offline | more)], "rows", find_model).rows
        return float(Fitted(own, {}, {}, {}).predict(rows)[0])

    full = rate()
    batch = own.max_batch
    assert rate(requests=batch) == pytest.approx(full)
    assert rate(requests=3 * batch) == pytest.approx(full)
    # A last wave of one request takes the time that one alone takes.
    assert rate(requests=batch + 1) == pytest.approx((batch + 1) / (batch / full + 1 / rate(requests=1)))
    assert rate(requests=1) < 0.1 * full


def test_names_of_models() -> None:
    assert plain_name("DeepSeek-R1-0528 (DeepSeek-V3 architecture, 671B/37B)") == "deepseek-r1"
    assert find_model("DeepSeek-R1-0528").mla is not None
    assert plain_name("Llama-3.3-70B (dense)") == "llama-3.3-70b"


def test_conformal_intervals_cover_what_they_promise() -> None:
    rng = np.random.default_rng(0)
    covered = []
    for _ in range(200):
        ratio = np.exp(rng.normal(0, 0.2, 21))
        _, spread = error_of(ratio[:20])
        covered.append(abs(np.log(ratio[20])) <= 1.2815515594457 * spread)
    assert 0.72 < np.mean(covered) < 0.9
