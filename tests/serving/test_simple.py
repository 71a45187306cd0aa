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


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({1: 0.1, 64: 0.01}, "seconds fall from 0.1 at batch 1 to 0.01 at 64"),
        ({1: 0.1, 64: float("inf")}, "positive and finite"),
        ({1: 0.1, 64: float("nan")}, "positive and finite"),
        ({0: 0.1, 64: 0.2}, "positive and finite"),
        ({1: 0.1}, "at least two batches"),
    ],
)
def test_tables_that_no_machine_gives_are_refused(rows: dict[float, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        table({2: rows})


def test_a_table_that_falls_by_noise_stays_level_beyond_its_end() -> None:
    latency = table({1: {1: 0.0100, 64: 0.0098}})
    assert latency(1e6, 1) == pytest.approx(0.0098)


def test_the_cost_marks_where_it_lies_beyond_the_table() -> None:
    latency = table({1: {1: 0.01, 64: 0.02}})
    cost = serve_simple(
        params_total=10e9, d_model=4096, n_layers=32, prompt=1000, output=200, memory_elements=80e9,
        price_per_hour=3.6, prefill=latency, decode=latency, gpus=(1,),
    )  # fmt: skip
    assert cost.batch > 64
    assert [line.split()[0] for line in cost.doubts(latency, latency, 200)] == ["decode"]
    assert cost.time_per_output_token == pytest.approx(cost.batch / cost.tokens_per_second)
    assert cost.time_to_first_token == pytest.approx(0.01 + cost.time_per_output_token)
    assert cost.cost_per_million_tokens * 1200 == pytest.approx(cost.cost_per_million_output_tokens * 200)
    assert cost.memory_elements == pytest.approx(80e9)
