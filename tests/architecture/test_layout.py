"""Layouts are read, counted and refused with the field."""

import numpy as np
import pytest

from moelab.architecture import load_preset
from moelab.architecture.layout import Layout, LayoutSizes
from moelab.errors import InputError


def test_a_layout_reads_what_it_prints() -> None:
    layout = Layout.read(" tp=8, pp=4,cp=2,dp=16,vp=3,zero=2 ")
    assert layout == Layout(tp=8, pp=4, cp=2, dp=16, vp=3, zero=2)
    assert Layout.read(str(layout)) == layout
    assert layout.devices == 8 * 4 * 2 * 16
    assert Layout.read("") == Layout()


def test_copies_of_an_expert_share_the_devices_of_a_stage() -> None:
    sizes = Layout.read("tp=2,cp=2,dp=8,ep=16,pp=4").sizes
    assert sizes.expert_dp == 2
    many = LayoutSizes(tp=np.array([1, 2]), dp=8)
    assert list(many.devices) == [8, 16]
    assert many.take(np.array([1])).tp == [2]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tp8", "layout: expected name=size with the names tp, pp, cp, ep, dp, vp, zero, got 'tp8'"),
        ("tp=8,tp=4", "layout: tp is given twice"),
        ("tp=x", "layout: tp: expected a number"),
        ("zero=4", "layout: zero: input should be 0, 1, 2 or 3, got 4"),
        ("tpp=2", "layout: tpp: unknown key; did you mean 'tp'?"),
        ("pp=0", "layout: pp: input should be greater than 0, got"),
    ],
)
def test_text_that_is_no_layout_is_refused(text: str, message: str) -> None:
    with pytest.raises(InputError) as refused:
        Layout.read(text)
    assert str(refused.value).startswith(message)


@pytest.mark.parametrize(
    ("preset", "text", "message"),
    [
        ("llama3-8b", "tp=3", "layout: tp must divide n_heads (32), got 3"),
        ("deepseek-v3", "tp=128", "layout: tp must divide moe.d_shared"),
        ("llama3-8b", "pp=40", "layout: pp x vp must be at most n_layers + 2 (34), got 40"),
        ("llama3-8b", "vp=2", "layout: vp needs pp above 1, got 2"),
        ("llama3-8b", "ep=2,dp=2", "layout: ep must be 1 for a dense model, got 2"),
        ("qwen3-30b-a3b", "ep=3,dp=3", "layout: ep must divide n_experts (128), got 3"),
        (
            "qwen3-30b-a3b",
            "ep=8,dp=4",
            "layout: ep must divide tp x cp x dp (4), the devices of a pipeline stage, got 8",
        ),
        ("llama3-8b", "cp=3", "layout: tp x cp must divide seq_len (4,096), got 3"),
    ],
)
def test_a_layout_that_does_not_divide_a_model_is_refused(preset: str, text: str, message: str) -> None:
    config = load_preset(preset)
    if preset == "deepseek-v3":
        assert config.moe is not None
        config = config.replace(moe=config.moe.replace(d_shared=2112).to_dict())
    with pytest.raises(InputError) as refused:
        Layout.read(text).check(config, 4096)
    assert str(refused.value).startswith(message)
    assert "\n" not in str(refused.value)
