"""What to beware of in a serving cost: what no measured row supports, and heads that engines do not split so."""

from typing import Any

from moelab.architecture import ModelConfig
from moelab.serving.calibration import STATED
from moelab.serving.hardware import Hardware, catalogue
from moelab.serving.traffic import Traffic


def doubts(model: ModelConfig, cost: dict[str, Any], hardware: Hardware, traffic: Traffic) -> list[str]:
    """What to beware of in the answer of `serve_one` for this model."""
    lines = []
    if hardware.calibrated(traffic.engine).id == STATED:
        lines.append(
            "not calibrated: the hardware file states its own shares of peak, and no fixed cost is counted; such "
            "rooflines were 1.3 to 3.5 times too fast beside measured engines"
        )
    products = hardware.calibrated(traffic.engine).products
    if products is not None and traffic.precision not in products:
        lines.append(
            f"not calibrated: products in {traffic.precision} were not measured ({', '.join(products)} were); they are "
            "taken for the larger of reading and computing, which is too fast for few rows"
        )
    heads = 1 if model.mla is not None else model.n_kv_heads
    if cost["parallel"] == "tensor" and cost["gpus"] > heads:
        what = "one latent KV cache" if model.mla is not None else f"{heads} KV head{'s' * (heads > 1)}"
        lines.append(
            f"tensor parallel over {cost['gpus']:,} devices but {what}: those beyond {heads} hold copies of the cache"
        )
    lines += uneven_heads(model, cost) + borrowed(hardware)
    if traffic.uncalibrated:
        lines.append(f"not calibrated: no measured rows support {', '.join(traffic.uncalibrated)}")
    if cost["gpus"] > hardware.node:
        lines.append(f"not calibrated: {cost['gpus']:,} devices span several nodes of {hardware.node}")
    return lines


def borrowed(hardware: Hardware) -> list[str]:
    """A line where the calibration is that of another maker's device, and of an engine that does not run here."""
    own = hardware.calibration is not None or hardware.calibrated().id == STATED
    like = None if own else catalogue().get(hardware.like or "")
    if like is None or like.name.split()[0] == hardware.name.split()[0]:
        return []
    return [f"not calibrated: no measured serving of {hardware.name}; its share of peak is that of {like.name}"]


def uneven_heads(model: ModelConfig, cost: dict[str, Any]) -> list[str]:
    """A line where engines do not split the heads over the devices of `serve_one`'s answer: vLLM needs whole
    query heads, and whole KV heads or whole copies of them, on every device."""
    gpus, heads, kv_heads = cost["gpus"], model.n_heads, 1 if model.mla is not None else model.n_kv_heads
    if cost["parallel"] != "tensor" or (heads % gpus == 0 and (kv_heads % gpus == 0 or gpus % kv_heads == 0)):
        return []
    return [
        f"tensor parallel over {gpus:,} devices does not divide {heads} heads, {kv_heads} of KV: engines such as "
        "vLLM refuse it; the busiest device is priced"
    ]
