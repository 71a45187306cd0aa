"""Values that are allowed and hardly meant get a note: slow limits, free or expensive devices, prompts all cached."""

import pytest

from moelab.planning import Budget
from moelab.planning.costs import odd_prices
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


def test_a_price_of_one_offer_is_named_as_one() -> None:
    """Of other devices several offers are known; what is given needs no note."""
    line = odd_price("gpu_price", None, load_hardware("gb200"))
    assert [each.startswith("gpu_price: $4.54 an hour of NVIDIA GB200") for each in line] == [True]
    assert "is one offer, as of 2026-03-17" in line[0]
    assert odd_price("gpu_price", None, load_hardware("h200")) == []
    assert odd_price("gpu_price", 5.0, load_hardware("gb200")) == []
    assert str(load_hardware("gb200").prices) == "one offer, as of 2026-03-17"
    assert str(load_hardware("h200").prices) == "offers of $3.45 to $6.31, as of 2026-10-24"


def test_a_plan_names_it_once_for_one_kind_of_device() -> None:
    """Devices that train and serve, of one kind, have one line; of two kinds each its own."""
    for trains, options in ((None, ["--gpu-price"]), ("mi325x", ["--gpu-price", "--train-gpu-price"])):
        asked = Budget(flops=1e21, serving={"hardware": "gb200"}, train_hardware=trains)
        assert [line.split(":")[0] for line in odd_prices(asked)] == options
    assert odd_prices(Budget(flops=1e21, serving={"hardware": "gb200", "gpu_price": 5.0})) == []
