"""Building a model and its initial weights: a pure function of the seed, drawn parameter by parameter."""

import hashlib

import torch
from torch import Tensor

from moelab.architecture import ModelConfig, count_parameters
from moelab.architecture.memory import weight_bytes
from moelab.errors import InputError
from moelab.machine import machine_memory
from moelab.model.dispatch import check_dispatch, resolve_dispatch
from moelab.model.language_model import LanguageModel
from moelab.quantities import format_bytes, format_number

EMBEDDING_STD = 0.02
MOST_OF_MEMORY = 4.0
"""A model of so many times the memory is a slip; a smaller one may fit by swapping or sharing, and is tried."""


def build_model(config: ModelConfig, *, seed: int = 0, dispatch: str = "auto") -> LanguageModel:
    """The model a config describes, on the CPU in fp32, initialised from `seed` alone.

    `dispatch` is a back end's name or `auto` (resolved for fp32 on the CPU; resolve it yourself for another device).
    Raises InputError for an architecture that is only counted, one far too large for this machine (by count, before
    memory is asked for), and for an unknown back end.
    """
    if config.unbuildable:
        raise InputError(f"model: moelab counts but cannot build {config.unbuildable}")
    check_memory(config)
    model = outline_model(config, dispatch)
    # As `to_empty` does, whose tensor "like" another one loads a thousand modules to look at strides, half a second.
    model._apply(lambda tensor: torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu"))
    initialize(model, seed)
    for buffer in model.buffers():
        buffer.zero_()
    return model


def outline_model(config: ModelConfig, dispatch: str = "auto") -> LanguageModel:
    """The model without values, on the device `meta`. Raises InputError for an unknown back end."""
    if check_dispatch(dispatch) == "auto":
        dispatch = resolve_dispatch(config, "cpu", torch.float32)
    with torch.device("meta"):  # torch's own initialisation would draw from the global generator
        return LanguageModel(config, dispatch)


def check_memory(config: ModelConfig) -> None:
    """Raises InputError for a model of more than `MOST_OF_MEMORY` times this machine's memory."""
    there = machine_memory()
    needed = float(weight_bytes(config, "fp32"))
    if there is not None and needed > MOST_OF_MEMORY * there:
        raise InputError(
            f"model: its {format_number(count_parameters(config).params_total)} parameters take {format_bytes(needed)} "
            f"in fp32; this machine has {format_bytes(there)}"
        )


@torch.no_grad()
def initialize(model: LanguageModel, seed: int) -> None:
    """Fill every parameter. Each draws from its own generator, seeded by (seed, name).

    So two architectures that share a parameter's name and shape start it at the same values. Matrices are normal with
    standard deviation 1/sqrt(fan in), those that write to the residual stream further divided by sqrt(2 n_layers)
    (GPT-2), embeddings and head 0.02, gains of norms 1, biases 0, sinks 0 (a score like that of unrelated keys).
    """
    for name, parameter in model.named_parameters():
        if not parameter.is_meta:
            draw(model, name, parameter, seed)


@torch.no_grad()
def draw(model: LanguageModel, name: str, values: Tensor, seed: int) -> None:
    """Fill `values`, of the whole parameter's shape, with what that parameter of the model starts at."""
    owner = model.get_submodule(name.rpartition(".")[0])
    if name.endswith(("norm.weight", "theta")):
        values.fill_(getattr(owner, "initial", 1.0))
    elif name.endswith(("bias", "sinks")):
        values.zero_()
    else:
        values.normal_(0.0, _std(name, values, model.config), generator=_generator(seed, name))


def _std(name: str, parameter: Tensor, config: ModelConfig) -> float:
    if "embed_tokens" in name or "lm_head" in name:
        return EMBEDDING_STD
    std = parameter.shape[-1] ** -0.5
    writes_residual = "o_proj" in name or "down_proj" in name
    return float(std / (2 * config.n_layers) ** 0.5) if writes_residual else float(std)


def _generator(seed: int, name: str) -> torch.Generator:
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
