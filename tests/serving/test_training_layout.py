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
    MULTIPLES,
    SMALL_STAGE,
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
    choices = itertools.product(SPLITS, MULTIPLES, EXPERT_GROUPS, MICRO_BATCHES, range(3))
    for (tp, pp), multiple, group, micro_batch, number in choices:
        dp = where.gpus // (tp * pp * multiple) * multiple
        if not dp or shape.n_heads % tp or shape.n_layers < pp:
            continue
        if shape.n_experts and tp * dp >= SMALL_STAGE and tp * dp % 8:
            continue
        ep = 1
        while shape.n_experts and 2 * ep <= group and shape.n_experts % (2 * ep) == 0 and tp * dp % (2 * ep) == 0:
            ep *= 2
        pieces = min(int(shape.n_layers) // pp, MOST_PIECES) if pp > 1 else 1
        layout = Layout(tp=tp, pp=pp, ep=ep, dp=dp, vp=pieces, zero=3 if pp == 1 else 1)
        step = TrainingStep(micro_batch=micro_batch, seq_len=4096, recompute=RECOMPUTATIONS[number])
        if device_memory(shape, layout, step).total <= USABLE * where.device.memory:
            setup = where.setup(layout.sizes, micro_batch, 2.0 if number == 2 else 1.0)
            seconds = float(seconds_per_token(shape, setup, coefficients))
            best = min(best, seconds * where.gpus / (tp * pp * dp))
    return best


@pytest.mark.parametrize(
    ("preset", "gpus"),
    [
        ("llama3-8b", 8),
        ("qwen3-30b-a3b", 16),
        ("llama3-70b", 64),
        ("qwen3-30b-a3b", 13),
        ("llama3-70b", 71),
        ("deepseek-v3", 520),
    ],
)
def test_the_choice_equals_a_loop_over_all(preset: str, gpus: int) -> None:
    shape = Shape.of(load_preset(preset))
    assert choose_layouts(shape, cluster(gpus), training_calibration()).seconds[0] == pytest.approx(
        fastest(shape, cluster(gpus))
    )


@pytest.mark.parametrize("preset", ["deepseek-v3", "qwen3-30b-a3b", "mixtral-8x7b", "llama3-70b"])
def test_more_devices_train_no_fewer_tokens(preset: str) -> None:
    shape, most = Shape.of(load_preset(preset)), 0.0
    for gpus in (480, 500, 504, 507, 511, 512, 513, 517, 520, 544, 600, 640, 777, 896, 1000, 1023, 1024):
        found = choose_layouts(shape, cluster(gpus), training_calibration())
        assert 0.75 * gpus <= found.layout.devices[0] <= gpus
        tokens = gpus / float(found.seconds[0])
        assert tokens >= most * (1 - 1e-9)
        most = tokens


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
