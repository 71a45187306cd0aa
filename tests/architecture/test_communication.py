"""Bytes of a step over a mesh, on paper. A real step's are held against them in tests/training/test_mesh.py."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from moelab.architecture import ModelConfig, count_parameters
from moelab.architecture.communication import step_traffic
from moelab.errors import InputError

ROOT = Path(__file__).parents[2]
SHAPE = {"vocab_size": 300, "d_model": 16, "n_layers": 2, "n_heads": 2, "d_ff": 32}
MOE = {"n_experts": 4, "top_k": 2, "d_expert": 16}


@pytest.fixture(scope="module")
def scale() -> ModuleType:
    spec = importlib.util.spec_from_file_location("scale", ROOT / "benchmarks" / "scale.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_table_of_the_docs_is_computed(scale: ModuleType) -> None:
    assert "\n".join(scale.table()) in (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")


def test_one_process_sends_nothing() -> None:
    model = ModelConfig.parse({**SHAPE, "moe": MOE})
    assert step_traffic(model, data=1, expert=1, local_tokens=128).total == 0


def test_a_dense_model_by_hand() -> None:
    model = ModelConfig.parse(SHAPE)
    total, ends = count_parameters(model).params_total, 300 * 16 + 16
    sent = step_traffic(model, data=4, expert=1, local_tokens=32, passes=2)
    assert sent.gathered == 2 * 4 * (2 * (total - ends) + ends) * 3 / 4
    assert (sent.scattered, sent.exchanged) == (4 * total * 3 / 4, 0)


def test_rows_by_hand() -> None:
    model = ModelConfig.parse({**SHAPE, "moe": MOE})
    sent = step_traffic(model, data=1, expert=2, local_tokens=64, precision="bf16")
    rows, gates, counts = 64 * 2 * 16 * 2 * 4, 64 * 2 * 4 * 2, 4 * 8
    assert sent.exchanged == 2 * (rows + gates + counts) / 2
    further = ModelConfig.parse({**SHAPE, "moe": MOE, "mtp_layers": 1})
    assert (
        step_traffic(further, data=1, expert=2, local_tokens=64, precision="bf16").exchanged == sent.exchanged * 3 / 2
    )


def test_a_mesh_divides_the_experts() -> None:
    with pytest.raises(InputError, match="expert: must divide the 4 experts, got 3"):
        step_traffic(ModelConfig.parse({**SHAPE, "moe": MOE}), data=1, expert=3, local_tokens=64)
