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
    assert marked(str(stated), engine="vllm")[0] == {"engine", "shares"}
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
        ({"gpus": 16}, "nodes"),
        ({"cached": 0.5}, "engine"),
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
    assert width("gb300", gpus=16) < width("h200", gpus=16)


@pytest.mark.parametrize(
    ("name", "engine", "few", "by"),
    [
        ("h200", "tensorrt-llm", None, "model"),
        ("h100", "tensorrt-llm", None, "model"),
        ("h200", "sglang", "one model", "model and engine"),
        ("h200", "vllm", None, "model and engine"),
        ("mi300x", "sglang", "one model", "model and engine and device"),
        ("mi300x", "vllm", "too few", "model and engine and device"),
        ("mi325x", None, "too few", "model and engine and device"),
        ("mi355x", "vllm", None, "model and engine and device"),
        ("b200", None, None, "model and device"),
    ],
)
def test_few_rows_or_one_model_state_no_error_of_their_own(
    name: str, engine: str | None, few: str | None, by: str
) -> None:
    device = load_hardware(name)
    found, errors = device.calibrated(engine), shipped()["errors"]
    assert (found.few, found.held_out_by) == (few, by)
    apart = (
        errors["device"]["error"] if "device" in by else 0.0,
        errors["engine" if "engine" in by else "none"]["error"],
    )
    assert found.error == pytest.approx(math.hypot(*apart))
    text = marked(name, precision="fp8", engine=engine)[1]
    assert ("error and interval are those of what has no rows" in text) is (few is not None)
    if few:
        assert f"{found.n_rows} row" in found.line()
        assert f"({few})" in found.line()


def test_one_device_has_at_most_the_load_of_all() -> None:
    asked = {"gpus": 8, "parallel": "expert", "precision": "fp8"}
    with pytest.raises(InputError, match=r"imbalance: must be at most the number of devices, 8, .* got 80"):
        serving_cost("qwen3-30b-a3b", "h200", imbalance=80, **asked)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="at most the number of devices, 64"):
        serving_cost("qwen3-30b-a3b", "h200", imbalance=80, parallel="expert", precision="fp8")
    worst = serving_cost("qwen3-30b-a3b", "h200", imbalance=8, **asked)  # type: ignore[arg-type]
    assert worst.tokens_per_second < serving_cost("qwen3-30b-a3b", "h200", imbalance=2, **asked).tokens_per_second  # type: ignore[arg-type]
