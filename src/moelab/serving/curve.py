"""Throughput against latency: one model on given devices as the batch grows."""

from typing import Any

from moelab.architecture import ModelConfig
from moelab.serving.cost import serve
from moelab.serving.hardware import Hardware
from moelab.serving.traffic import Traffic


def batch_curve(
    model: ModelConfig, traffic: Traffic, hardware: Hardware, cost: dict[str, Any], label: str
) -> list[dict[str, Any]]:
    """Rows batch, tokens_per_second, time_per_output_token (seconds), label: the devices of `cost` (of `serve_one`),
    batches by powers of two up to its own."""
    batches = [1 << k for k in range(cost["batch"].bit_length()) if 1 << k < cost["batch"]] + [cost["batch"]]
    rows = []
    for batch in batches:
        result = serve(model, traffic.replace(batch=batch, gpus=cost["gpus"]), hardware).to_dict()
        if result is not None:
            names = ("batch", "tokens_per_second", "time_per_output_token")
            rows.append({name: result[name] for name in names} | {"label": label})
    return rows
