"""Models far too large for the machine are refused by count, before memory is asked for."""

from typing import Any

import pytest

from moelab.architecture import ModelConfig
from moelab.errors import InputError
from moelab.model import build_model, initialize

SMALL = {"vocab_size": 512, "d_model": 16, "n_layers": 2, "n_heads": 2, "d_ff": 32}


@pytest.mark.parametrize(
    "change",
    [
        {"n_layers": 65536, "d_model": 1024},
        {"d_model": 2**20},
        {"d_ff": 2**24, "n_layers": 1000},
        {"moe": {"n_experts": 2**20, "top_k": 2, "d_expert": 4096}},
    ],
)
def test_a_model_beyond_the_machine_is_refused_by_count(
    change: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def built(*_: object) -> None:
        raise AssertionError("memory was asked for")

    monkeypatch.setattr(initialize, "LanguageModel", built)
    with pytest.raises(InputError, match=r"^model: its .* parameters take .* in fp32; this machine has "):
        build_model(ModelConfig.parse({**SMALL, **change}))


def test_four_times_the_memory_is_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    config = ModelConfig.parse(SMALL)
    needed = sum(parameter.numel() * 4 for parameter in build_model(config).parameters())
    monkeypatch.setattr(initialize, "machine_memory", lambda: needed / 4)
    build_model(config)
    monkeypatch.setattr(initialize, "machine_memory", lambda: needed / 4.001)
    with pytest.raises(InputError, match="this machine has"):
        build_model(config)
    monkeypatch.setattr(initialize, "machine_memory", lambda: None)
    build_model(config)
