"""What is not calibrated is marked, in data and for people: precisions and engines without rows."""

from pathlib import Path

import pytest

from moelab.errors import InputError
from moelab.serving import load_hardware
from moelab.serving.calibration import shipped
from moelab.serving.serving_cost import serving_cost


def marked(hardware: str, **asked: object) -> tuple[set[str], str]:
    """The names in JSON, without the energy, and the warnings in one text."""
    served = serving_cost("llama3-8b", hardware, gpus=1, **asked)  # type: ignore[arg-type]
    value = served.to_dict()
    return set(value["not_calibrated"]) - {"joules_per_output_token"}, "\n".join(value["warnings"])


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16", "fp8", "int8", "int4", "mxfp4", "nvfp4"])
@pytest.mark.parametrize("kv_precision", ["bf16", "fp8", "int4"])
def test_precisions_without_rows_are_marked(precision: str, kv_precision: str) -> None:
    names, text = marked("h200", precision=precision, kv_precision=kv_precision)
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
