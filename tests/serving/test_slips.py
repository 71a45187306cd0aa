"""Values that are allowed and hardly meant get a note: slow limits, free or expensive devices, prompts all cached."""

import pytest

from moelab.serving import load_hardware
from moelab.serving.serving_cost import serving_cost
from moelab.serving.slips import odd_price


def notes(**asked: object) -> str:
    return "\n".join(serving_cost("llama3-8b", "h200", precision="fp8", **asked).warnings)  # type: ignore[arg-type]


def test_usual_values_have_no_note() -> None:
    assert notes(tpot="40ms", ttft="5s", cached=0.9, gpu_price=6).count("meant") == 0
    assert "tpot: " not in notes()


@pytest.mark.parametrize(("name", "value", "words"), [("tpot", "40s", "per output token"), ("ttft", "2min", "first")])
def test_a_limit_that_no_server_has_is_noted_with_the_prediction(name: str, value: str, words: str) -> None:
    text = notes(**{name: value})
    assert f"{name}: a limit of" in text
    assert words in text
    assert "(predicted: " in text


def test_a_prompt_that_is_all_cached_is_a_lower_bound() -> None:
    assert "cached: 1 leaves no token of a prompt to compute" in notes(cached=1.0)
    assert "cached: 1 leaves" not in notes(cached=0.99)


def test_prices_of_nothing_and_ten_times_off_are_noted() -> None:
    h100 = load_hardware("h100")
    assert "gpu_price: at a price of 0 all dollars of NVIDIA H200" in notes(gpu_price=0)
    assert odd_price("--train-gpu-price", 364, h100) == [
        "--train-gpu-price: $364 an hour is 100 times the $3.64 known for NVIDIA H100 80 GB SXM"
    ]
    assert odd_price("--gpu-price", 0.2, h100)
    for usual in (None, 0.5, 3.64, 30.0):
        assert odd_price("--gpu-price", usual, h100) == []
    assert odd_price("--gpu-price", 500.0, load_hardware("gb300")) == [], "no price is known to compare with"
