"""Training memory per device: by hand, monotone in every kind of parallelism, and every published run fits."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from moelab.architecture import ModelConfig, Shape, count_parameters, load_preset
from moelab.architecture.layout import RECOMPUTATIONS, Layout, LayoutSizes
from moelab.architecture.memory import training_memory
from moelab.architecture.training_memory import TrainingStep, count_training_memory, device_memory
from moelab.errors import InputError
from moelab.serving.training_rows import read_training_rows

MEASURED = Path(__file__).parents[2] / "benchmarks" / "measured" / "training.csv"
STEP = TrainingStep(micro_batch=1, seq_len=4096)


def total(preset: str, layout: str, step: TrainingStep = STEP) -> float:
    return float(device_memory(Shape.of(load_preset(preset)), Layout.read(layout), step).total)


def test_a_small_model_by_hand() -> None:
    config = ModelConfig(
        vocab_size=100, d_model=64, n_layers=2, n_heads=4, n_kv_heads=2, d_ff=96, qk_norm="none", tie_embeddings=False
    )
    memory = device_memory(Shape.of(config), Layout(), TrainingStep(micro_batch=3, seq_len=10))
    params = count_parameters(config).params_total
    assert (memory.weights, memory.gradients, memory.optimizer) == (2 * params, 4 * params, 12 * params)
    queries, keys = 64, 32
    attention = 2 * (2 * 64 + queries + 2 * keys + queries) + 4 * 4  # input and norm; q, k, v, output; fp32 log sum
    feed_forward = 2 * (2 * 64 + 4 * 96)
    loss = 30 * 2 * 3 * 64 + 4 * 100 * 64
    assert memory.activations == 30 * 2 * (attention + feed_forward) + loss


def test_one_device_holds_the_whole_training_state() -> None:
    for preset in ("llama3-8b", "qwen3-30b-a3b", "deepseek-v3"):
        config = load_preset(preset)
        memory = device_memory(Shape.of(config), Layout(), STEP)
        assert memory.weights + memory.gradients + memory.optimizer == pytest.approx(training_memory(config).total)


def test_modules_that_predict_further_tokens_are_split_as_the_layers_are() -> None:
    config = load_preset("deepseek-v3")
    memory = device_memory(Shape.of(config), Layout(), STEP)
    assert memory.weights == pytest.approx(training_memory(config).weights)
    apart = Layout(ep=64, dp=64)
    split = [device_memory(Shape.of(c), apart, STEP).weights for c in (config.replace(mtp_layers=None), config)]
    experts = 256 * 3 * 7168 * 2048
    assert split[1] - split[0] == pytest.approx(2 * (count_parameters(config).mtp - experts + experts / 64))


def test_every_kind_of_parallelism_and_recomputation_saves_memory() -> None:
    for preset, more in (("llama3-8b", ()), ("qwen3-30b-a3b", ("ep=8,dp=8",))):
        alone = total(preset, "dp=8,zero=0")
        for layout in ("tp=4,dp=8,zero=0", "cp=2,dp=8,zero=0", "dp=8,zero=1", *more):
            assert total(preset, layout) < alone, layout
        assert total(preset, "dp=8,zero=3") < total(preset, "dp=8,zero=2") < total(preset, "dp=8,zero=1")
        by = [total(preset, "dp=8", replace(STEP, recompute=name)) for name in RECOMPUTATIONS]
        assert by[0] > by[1] > by[2]
        assert total(preset, "pp=4,dp=8") < total(preset, "dp=8")


def test_the_first_of_p_stages_holds_p_micro_batches() -> None:
    shape = Shape.of(load_preset("llama3-8b"))
    piped = device_memory(shape, Layout(pp=4), STEP).activations
    alone = device_memory(shape, Layout(pp=1), STEP).activations
    assert piped == pytest.approx(alone, rel=0.35)  # of a quarter of the layers, four; the loss is elsewhere
    assert device_memory(shape, Layout(pp=4, vp=2), STEP).activations == pytest.approx(piped * (1 + 3 / 8))
    assert device_memory(shape, Layout(pp=4), replace(STEP, microbatches=1)).activations < piped / 2


def test_many_designs_and_layouts_at_once_equal_one_by_one() -> None:
    names = ("llama3-8b", "qwen3-30b-a3b", "deepseek-v3")
    layouts = [Layout(tp=2, pp=2, dp=4, zero=3), Layout(ep=8, dp=8), Layout(ep=16, dp=16, pp=4, vp=4, zero=2)]
    shapes = [Shape.of(load_preset(name)) for name in names]
    fields = Shape.__dataclass_fields__
    stacked = Shape(**{field: np.array([getattr(shape, field) for shape in shapes]) for field in fields})
    sizes = LayoutSizes(**{n: np.array([getattr(one, n) for one in layouts]) for n in Layout.model_fields})
    for name in RECOMPUTATIONS:
        step = replace(STEP, recompute=name)
        together = device_memory(stacked, sizes, step)
        for i, (shape, layout) in enumerate(zip(shapes, layouts, strict=True)):
            for part, value in device_memory(shape, layout, step).parts.items():
                assert together.parts[part][i] == pytest.approx(value), (part, name)


def test_every_published_run_fits_its_devices() -> None:
    rows = read_training_rows(MEASURED, newest=False)
    assert len(rows) > 130
    for row in rows:
        needed = [
            device_memory(
                row.shape,
                row.layout,
                TrainingStep(
                    micro_batch=row.setup.micro_batch,
                    seq_len=row.setup.seq_len,
                    recompute=name,
                    microbatches=row.setup.microbatches,
                ),
            ).total
            for name in RECOMPUTATIONS
        ]
        assert min(needed) < 0.95 * row.setup.device.memory, row


def test_deepseek_v3_needs_expert_and_pipeline_parallelism() -> None:
    config = load_preset("deepseek-v3")
    fits = {}
    for layout in ("dp=256", "dp=256,ep=64", "pp=4,dp=64", "pp=4,dp=64,ep=64"):
        table = count_training_memory(config, layout)
        fits[layout] = min(float(m.total) for m in table.by_recomputation.values()) < 186e9
    assert fits == {"dp=256": False, "dp=256,ep=64": False, "pp=4,dp=64": False, "pp=4,dp=64,ep=64": True}
    on_h100 = count_training_memory(config, "dp=256,ep=64").by_recomputation
    assert min(float(m.total) for m in on_h100.values()) > 80e9


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(InputError, match="recompute: must be one of none, selective, full, got 'half'"):
        TrainingStep(seq_len=1, recompute="half")
    with pytest.raises(InputError, match="micro_batch: "):
        count_training_memory(load_preset("llama3-8b"), micro_batch=0)
    with pytest.raises(InputError, match="layout: tp must divide n_heads"):
        count_training_memory(load_preset("llama3-8b"), "tp=5")
