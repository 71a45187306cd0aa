"""The number of devices: of all powers of two that with the lowest upper end of its price, found as if each had been
tried by itself."""

from typing import Any

import numpy as np
import pytest

from moelab.architecture import Shape, load_preset
from moelab.serving import Hardware, Traffic, load_hardware, serve

PRESETS = ["mixtral-8x7b", "deepseek-v3", "llama3-70b", "qwen3-30b-a3b", "llama3-8b", "gpt-oss-120b"]
TRAFFIC: list[dict[str, Any]] = [
    {},
    {"tpot": "20ms", "prompt": 3000, "output": 600},
    {"tpot": "60ms", "ttft": "400ms"},
    {"tpot": "40ms", "draft": 2, "acceptance": 0.7},
    {"tpot": "50ms", "graph_sizes": [1, 8, 64, 512]},
]


@pytest.mark.parametrize("traffic", TRAFFIC, ids=[str(index) for index in range(len(TRAFFIC))])
@pytest.mark.parametrize("name", ["h200", "gb200"])
def test_auto_is_the_cheapest_of_every_power_of_two(name: str, traffic: dict[str, Any]) -> None:
    """By hand: each number of devices and each way to split by itself, so that nothing is left out as too dear."""
    device, asked = load_hardware(name), Traffic(precision="fp8", **traffic)
    shapes = [Shape.of(load_preset(preset)) for preset in PRESETS]
    columns = {field: [np.ravel(getattr(shape, field)) for shape in shapes] for field in Shape.__dataclass_fields__}
    shape = Shape(**{field: np.concatenate(values) for field, values in columns.items()})
    found = serve(shape, asked, device)
    alone = [
        serve(shape, asked.replace(gpus=2**k, parallel=way), device) for k in range(7) for way in ("tensor", "expert")
    ]
    least = np.fmin.reduce([each.high("cost_per_million_tokens") for each in alone])
    np.testing.assert_array_equal(found.feasible, np.isfinite(least))
    np.testing.assert_allclose(found.high("cost_per_million_tokens"), least, rtol=0.02)


def test_a_group_that_no_row_supports_must_be_cheaper_by_its_doubt() -> None:
    """64 H100 served gpt-oss-120b 0.8 % cheaper than two of them, by terms that no measured row supports."""
    device, asked = load_hardware("h100"), Traffic(precision="mxfp4")
    model = load_preset("gpt-oss-120b")
    chosen, many = serve(model, asked, device), serve(model, asked.replace(gpus=64), device)
    assert chosen.gpus[0] <= device.node
    assert many.cost_per_million_tokens[0] < chosen.cost_per_million_tokens[0]
    assert many.high("cost_per_million_tokens")[0] > chosen.high("cost_per_million_tokens")[0]


@pytest.mark.parametrize("preset", PRESETS)
def test_more_memory_at_the_same_price_is_never_dearer(preset: str) -> None:
    model, device = load_preset(preset), load_hardware("h200")
    asked = Traffic(precision="fp8", tpot="40ms", prompt=3000, output=600)
    prices = [
        float(serve(model, asked, larger(device, factor)).cost_per_million_tokens[0]) for factor in (1, 1.5, 2, 4, 8)
    ]
    assert np.all(np.diff(prices) <= 1e-2 * np.array(prices[:-1]))


def larger(device: Hardware, factor: float) -> Hardware:
    return device.model_copy(update={"memory": device.memory * factor})
