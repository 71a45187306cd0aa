"""The chosen layout is the fastest predicted of all that fit, as a plain loop over them finds it."""

import itertools

import numpy as np
import pytest

from moelab.architecture import PRESETS, Shape, count_flops, load_preset
from moelab.architecture.layout import RECOMPUTATIONS, Layout
from moelab.architecture.training_memory import TrainingStep, device_memory
from moelab.serving import load_hardware
from moelab.serving.training_calibration import training_calibration
from moelab.serving.training_layout import (
    EXPERT_GROUPS,
    MICRO_BATCHES,
    MOST_PIECES,
    SPLITS,
    USABLE,
    Cluster,
    choose_layouts,
)
from moelab.serving.training_time import seconds_per_token


def cluster(gpus: int, hardware: str = "h100") -> Cluster:
    return Cluster(device=load_hardware(hardware), gpus=gpus, precision="bf16", seq_len=4096, batch_tokens=4e6)


def fastest(shape: Shape, where: Cluster) -> float:
    """The least seconds per token over every layout that is tried, one by one."""
    best, coefficients = np.inf, training_calibration().coefficients
    for (tp, pp), group, micro_batch, number in itertools.product(SPLITS, EXPERT_GROUPS, MICRO_BATCHES, range(3)):
        if where.gpus % (tp * pp) or shape.n_heads % tp or shape.n_layers < pp:
            continue
        dp = where.gpus // (tp * pp)
        ep = 1
        while shape.n_experts and 2 * ep <= group and shape.n_experts % (2 * ep) == 0 and tp * dp % (2 * ep) == 0:
            ep *= 2
        pieces = min(int(shape.n_layers) // pp, MOST_PIECES) if pp > 1 else 1
        layout = Layout(tp=tp, pp=pp, ep=ep, dp=dp, vp=pieces, zero=3 if pp == 1 else 1)
        step = TrainingStep(micro_batch=micro_batch, seq_len=4096, recompute=RECOMPUTATIONS[number])
        if device_memory(shape, layout, step).total <= USABLE * where.device.memory:
            setup = where.setup(layout.sizes, micro_batch, 2.0 if number == 2 else 1.0)
            best = min(best, float(seconds_per_token(shape, setup, coefficients)))
    return best


@pytest.mark.parametrize(("preset", "gpus"), [("llama3-8b", 8), ("qwen3-30b-a3b", 16), ("llama3-70b", 64)])
def test_the_choice_equals_a_loop_over_all(preset: str, gpus: int) -> None:
    shape = Shape.of(load_preset(preset))
    assert choose_layouts(shape, cluster(gpus), training_calibration()).seconds[0] == pytest.approx(
        fastest(shape, cluster(gpus))
    )


def test_a_model_that_fits_no_layout_takes_for_ever() -> None:
    shape = Shape.of(load_preset("deepseek-v3"))
    assert not np.isfinite(choose_layouts(shape, cluster(64), training_calibration()).seconds).any()
    on_more = choose_layouts(shape, cluster(256, "gb200"), training_calibration())
    assert np.isfinite(on_more.seconds).all()
    assert on_more.layout.ep[0] > 1


@pytest.mark.slow
def test_every_preset_trains_on_a_thousand_devices() -> None:
    for preset in PRESETS:
        config = load_preset(preset)
        seconds = choose_layouts(Shape.of(config), cluster(1024), training_calibration()).seconds[0]
        share = count_flops(config, 4096, causal=True).train / seconds / 989.4e12
        assert 0.15 < share < 0.65, preset
