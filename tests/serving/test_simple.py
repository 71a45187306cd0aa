"""Yun et al.'s serving model by hand, and its tables."""

from pathlib import Path

import pytest

from moelab.errors import InputError
from moelab.serving.simple import load_tables, serve_simple, table


def test_by_hand() -> None:
    cost = serve_simple(
        params_total=10e9,
        d_model=4096,
        n_layers=32,
        prompt=1000,
        output=200,
        memory_elements=40e9,
        price_per_hour=3.6,
        prefill=lambda batch, gpus: 0.1 * batch,
        decode=lambda batch, gpus: 0.02,
        gpus=(1,),
    )
    batch = 30e9 / (2200 * 4096 * 32)
    assert cost.batch == pytest.approx(batch)
    seconds = 0.1 * batch / 200 + 0.02
    assert cost.tokens_per_second == pytest.approx(batch / seconds)
    assert cost.cost_per_million_output_tokens == pytest.approx(1e3 * seconds / batch)


def test_the_cheapest_number_of_devices_wins() -> None:
    decode = table({1: {1: 0.05, 100: 0.06}, 4: {1: 0.02, 100: 0.03}})
    cost = serve_simple(
        params_total=30e9, d_model=4096, n_layers=32, prompt=500, output=100, memory_elements=40e9,
        price_per_hour=2.0, prefill=table({1: {1: 0.1, 2: 0.2}, 4: {1: 0.03, 2: 0.06}}), decode=decode, gpus=(1, 4),
    )  # fmt: skip
    assert cost.gpus == 4


def test_tables_interpolate_and_continue(tmp_path: Path) -> None:
    latency = table({1: {1: 0.01, 3: 0.02}})
    assert latency(2, 1) == pytest.approx(0.015)
    assert latency(5, 1) == pytest.approx(0.03)
    with pytest.raises(InputError, match="2 devices were not measured"):
        latency(1, 2)
    path = tmp_path / "t.yaml"
    path.write_text("prefill: {1: {1: 0.1, 2: 0.2}}\ndecode: {1: {1: 0.01, 2: x}}\n")
    with pytest.raises(InputError, match="expected"):
        load_tables(str(path))


def test_too_little_memory_names_what_is_needed() -> None:
    with pytest.raises(InputError, match="nearest feasible value is"):
        serve_simple(
            params_total=1e12, d_model=1, n_layers=1, prompt=1, output=1, memory_elements=40e9, price_per_hour=1.0,
            prefill=lambda b, g: 1.0, decode=lambda b, g: 1.0,
        )  # fmt: skip
