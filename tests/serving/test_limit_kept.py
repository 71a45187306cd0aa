"""What meets a limit with 90 % stands beside an answer whose limit binds."""

import re

import pytest

from moelab.planning.compare import compare
from moelab.serving.serving_cost import serving_cost

ASKED = {"precision": "fp8", "prompt": 1024, "output": 1024}


def test_a_binding_limit_names_what_meets_it_with_90_percent() -> None:
    served = serving_cost("qwen3-235b-a22b", "h200", gpus=8, tpot="20ms", **ASKED)
    (line,) = (text for text in served.warnings if "probability" in text)
    batch, dollars = re.search(r"met by ([\d,]+) requests on 8 devices, \$([\d.]+) a million", line).groups()  # type: ignore[union-attr]
    assert "met with a probability of 5" in line
    assert int(batch) < served.batch
    # By hand: with these requests the upper end of the time is within the limit, and with one more it is not.
    for requests, within in ((int(batch), True), (int(batch) + 1, False)):
        held = serving_cost("qwen3-235b-a22b", "h200", gpus=8, batch=requests, **ASKED)
        assert held.intervals is not None
        assert (held.intervals["time_per_output_token_high"] <= 0.02) is within
        if within:
            assert held.cost_per_million_tokens == pytest.approx(float(dollars), rel=0.005)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"tpot": "13ms"}, "no batch on up to 64 devices meets it with 90%"),
        ({"tpot": "500ms"}, None),
        ({"batch": 45, "gpus": 8, "tpot": "21ms"}, None),
        ({}, None),
    ],
)
def test_limits_that_nothing_surely_meets_and_those_that_do_not_bind(
    asked: dict[str, object], expected: str | None
) -> None:
    model = "qwen3-235b-a22b" if expected or "batch" in asked else "llama3-8b"
    lines = [line for line in serving_cost(model, "h200", **asked, **ASKED).warnings if "probability" in line]
    assert (len(lines) == 1 and expected in lines[0]) if expected else lines == []


def test_a_limit_on_the_first_token_is_named_too() -> None:
    served = serving_cost("qwen3-235b-a22b", "h200", gpus=8, tpot="50ms", ttft="75ms", **ASKED)
    (line,) = (text for text in served.warnings if "probability" in text)
    assert "of 75 ms to the first token is met with a probability of" in line
    assert re.search(r"with 90% they are met by [\d,]+ requests? on 8 devices|meets them with 90%", line)


def test_compare_names_it_for_each_design() -> None:
    found = compare("qwen3-235b-a22b", "llama3-70b", hardware="h200", tpot="20ms", precision="fp8", flops=1e24)
    assert sum("with a probability of" in line for line in found.warnings) == 2
