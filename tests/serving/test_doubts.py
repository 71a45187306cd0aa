"""What is not calibrated is marked, in data and for people: precisions and engines without rows."""

import math
from pathlib import Path

import pytest

from moelab.errors import InputError
from moelab.serving import load_hardware
from moelab.serving.calibration import Z80, shipped
from moelab.serving.serving_cost import serving_cost


def marked(hardware: str, model: str = "llama3-8b", **asked: object) -> tuple[set[str], str]:
    """The names in JSON, without the energy, and the warnings in one text."""
    served = serving_cost(model, hardware, gpus=1, **asked)  # type: ignore[arg-type]
    value = served.to_dict()
    return set(value["not_calibrated"]) - {"joules_per_output_token"}, "\n".join(value["warnings"])


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16", "fp8", "int8", "int4", "mxfp4", "nvfp4"])
@pytest.mark.parametrize("kv_precision", ["bf16", "fp8", "int4"])
def test_precisions_without_rows_are_marked(precision: str, kv_precision: str) -> None:
    names, text = marked("h200", "gpt-oss-20b", precision=precision, kv_precision=kv_precision)
    assert ("precision" in names) is (precision not in ("fp8", "mxfp4"))
    assert ("kv_precision" in names) is (kv_precision == "int4")
    assert (f"not calibrated: no measured rows in {precision} (they are in fp8, mxfp4)" in text) is (
        "precision" in names
    )
    assert ("not calibrated: no measured rows with a KV cache in int4 (theirs: bf16, fp8)" in text) is (
        "kv_precision" in names
    )


def test_the_shipped_file_names_the_precisions_of_its_rows() -> None:
    found = load_hardware("h200").calibrated()
    assert found.precisions == tuple(shipped()["precisions"]) == ("fp8", "mxfp4")
    assert found.kv_precisions == ("bf16", "fp8")


def test_an_engine_beside_a_file_of_another_is_marked(tmp_path: Path) -> None:
    path, stated = tmp_path / "mine.yaml", tmp_path / "stated.yaml"
    h200 = load_hardware("h200")
    h200.replace(calibration=h200.calibrated("sglang")).to_yaml(path)
    h200.replace(bandwidth_efficiency=0.5).to_yaml(stated)
    assert marked(str(path), precision="fp8", engine="sglang")[0] == set()
    assert marked(str(path), precision="fp8")[0] == set()
    names, text = marked(str(path), precision="fp8", engine="vllm")
    assert names == {"engine"}
    assert "no measured rows of vllm; the calibration of the hardware file is h200/sglang" in text
    assert marked(str(stated), engine="vllm")[0] == {"engine"}
    assert marked("h200", precision="fp8", engine="vllm")[0] == set()


@pytest.mark.parametrize("device", ["mi300x", "mi355x", "tpu-v6e"])
def test_tensorrt_llm_runs_on_nvidia_alone(device: str) -> None:
    with pytest.raises(InputError, match="engine: tensorrt-llm runs on NVIDIA's devices, not on"):
        serving_cost("llama3-8b", device, precision="fp8", engine="tensorrt-llm")


def width(hardware: str = "h200", **asked: object) -> float:
    """The upper end of the throughput's 80 % interval over its value."""
    served = serving_cost("deepseek-v3", hardware, **{"gpus": 8, "precision": "fp8", **asked})  # type: ignore[arg-type]
    return float(served.to_dict()["tokens_per_second_high"] / served.tokens_per_second)


@pytest.mark.parametrize(
    ("asked", "step"),
    [
        ({"draft": 3, "acceptance": 0.8}, "draft"),
        ({"disaggregated": True}, "engine"),
        ({"cached": 0.5}, "engine"),
        ({"gpus": 16}, "device"),
        ({"kv_precision": "int4"}, "kv_precision"),
        ({"precision": "int8"}, "precision"),
    ],
)
def test_what_has_no_rows_has_a_wider_interval(asked: dict[str, object], step: str) -> None:
    """The interval is made from the rows that were left out by precision, with drafts, by engine or by device."""
    errors = shipped()["errors"]
    inside, further = errors["none"]["spread"] ** 2, errors[step]["spread"] ** 2
    assert width() == pytest.approx(math.exp(Z80 * math.sqrt(inside)))
    assert width(**asked) == pytest.approx(math.exp(Z80 * math.sqrt(max(inside, further))))
    summary = serving_cost("deepseek-v3", "h200", **{"gpus": 8, "precision": "fp8", **asked}).calibration  # type: ignore[arg-type]
    assert summary["error"] >= max(errors[step]["error"], errors["none"]["error"])
    assert errors[step]["held_out_by"] in summary["held_out_by"]


def test_doubts_add_up_as_independent_errors_and_each_counts_once() -> None:
    both, once = width(disaggregated=True, gpus=16), width(disaggregated=True)
    assert both > once > width()
    assert width(disaggregated=True, cached=0.5) == pytest.approx(once)
    assert width(draft=1, acceptance=0.5) > 1.2 * width()


def test_groups_larger_than_any_row_are_marked_inside_a_domain_too() -> None:
    asked = {"precision": "fp8", "kv_precision": "fp8"}
    for gpus, marked_here in ((8, False), (16, True), (72, True)):
        served = serving_cost("deepseek-v3", "gb300", gpus=gpus, **asked).to_dict()  # type: ignore[arg-type]
        assert ("gpus" in served["not_calibrated"]) is marked_here
        lines = [line for line in served["warnings"] if "no measured rows of more than 8 devices" in line]
        assert bool(lines) is marked_here
    assert width("gb300", gpus=16) > width("gb300", gpus=8)
