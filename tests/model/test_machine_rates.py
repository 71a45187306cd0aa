"""The machine is measured, and what was measured is read back as hardware that serves a model."""

from pathlib import Path

from moelab.architecture import load_preset
from moelab.model.machine_rates import measure_machine
from moelab.serving import Traffic, load_hardware, serve_one


def test_the_machine_is_measured_and_read_back(tmp_path: Path) -> None:
    machine, rates = measure_machine("cpu", seconds=1e-4, width=64)
    assert all(rate > 0 for rate in rates.values())
    assert machine.bandwidth >= rates["copy_bytes_per_second"]
    assert machine.bf16 == max(rate for name, rate in rates.items() if "_flops_" in name)
    machine.to_yaml(tmp_path / "me.yaml")
    read = load_hardware(str(tmp_path / "me.yaml"))
    assert read == machine
    assert read.calibration is not None
    assert read.calibration.products is not None
    assert set(read.calibration.products) == {"fp32", "bf16"}
    assert rates["bf16_expert_flops_8_rows"] == read.calibration.products["bf16"].experts[3]
    cost = serve_one(load_preset("llama3-8b"), Traffic(precision="int4", batch=1, gpus=1), read.replace(memory=64e9))
    assert cost["calibration"]["id"] == "this machine"
    assert cost["time_per_output_token_low"] is None
    assert cost["cost_per_million_tokens"] is None
