"""`plan --kv-precision`: the cache of the traffic that is served, and of the memory limit."""

import pytest

from moelab.architecture.memory import kv_bytes, weight_bytes
from moelab.planning.request import plan_request
from moelab.serving import serve_one


def request(**options: str) -> dict[str, object]:
    return {"flops": "1e20", "law": ["ludziejewski2025"], **options}


def test_the_cache_of_the_traffic_is_in_it() -> None:
    served = {"hardware": "h200", "tpot": "40ms", "precision": "fp8"}
    small = plan_request(request(**served, kv_precision="fp8")).plan()
    wide = plan_request(request(**served)).plan()
    assert wide.budget.serving is not None
    assert wide.budget.serving.traffic.kv_precision == "bf16"
    wanted = small.budget.serving
    assert wanted is not None
    assert wanted.traffic.kv_precision == "fp8"
    assert small.best.serving is not None
    own = serve_one(small.best.config, wanted.traffic, wanted.device, wanted.price)
    assert small.best.serving["cost_per_million_tokens"] == pytest.approx(own["cost_per_million_tokens"])
    other = serve_one(small.best.config, wide.budget.serving.traffic, wanted.device, wanted.price)
    assert own["cost_per_million_tokens"] < other["cost_per_million_tokens"]


@pytest.mark.parametrize(("kv_precision", "of_cache"), [(None, "fp8"), ("bf16", "bf16"), ("int4", "int4")])
def test_the_memory_limit_holds_the_cache_in_it(kv_precision: str | None, of_cache: str) -> None:
    options = {"precision": "fp8", "max_memory": "40GB", "context": "32768"}
    options |= {} if kv_precision is None else {"kv_precision": kv_precision}
    best = plan_request(request(**options)).plan().best
    wanted = weight_bytes(best.config, "fp8") + kv_bytes(best.config, 32768, of_cache)
    assert best.memory_bytes == pytest.approx(float(wanted))
    assert best.memory_bytes <= 40e9
