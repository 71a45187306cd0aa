"""Which keys each query of a forward pass may see: all before it, a window of them, or those of its own chunk.

B sequences, T new tokens, S keys: the last S of all tokens so far.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from moelab.architecture import ModelConfig
from moelab.architecture.attention import LayerKind
from moelab.model.cache import KVCache
from moelab.model.rotary import Rotary, layer_rotary


class Positions:
    """Where the T tokens of one pass stand: after `start` others, with padding where `mask` (B, start + T) is False."""

    def __init__(self, start: int, length: int, mask: Tensor | None, device: torch.device) -> None:
        self.start, self.length, self.mask, self.device = start, length, mask, device
        self._masks: dict[tuple[LayerKind, int, int], Tensor | None] = {}

    def visible(self, kind: LayerKind, window: int, n_keys: int) -> Tensor | None:
        """True where a query may look, (1 or B, 1, T, S); None where plain causal attention, or what `attend` does
        by itself for windows and chunks of whole sequences, is the same.

        A padding token sees itself, so that no query is left without a key. Formed once for each kind and S.
        """
        key = (kind, window, n_keys)
        if key not in self._masks:
            self._masks[key] = self._visible(*key)
        return self._masks[key]

    def _visible(self, kind: LayerKind, window: int, n_keys: int) -> Tensor | None:
        everything = kind == "full" or (kind == "window" and n_keys <= window)
        if self.mask is None and (self.start == 0 or (self.length == 1 and everything)):
            return None
        end = self.start + self.length
        queries = torch.arange(self.start, end, device=self.device)[:, None]
        keys = torch.arange(end - n_keys, end, device=self.device)
        allowed = (keys <= queries)[None, None]
        if kind == "window":
            allowed = allowed & (keys > queries - window)
        if kind == "chunk":
            first = 0 if self.mask is None else self._first()[:, None, None, None]
            allowed = allowed & ((keys - first) // window == (queries - first) // window)
        if self.mask is not None:
            allowed = (allowed & self.mask[:, None, None, end - n_keys :]) | (keys == queries)
        return allowed

    def _first(self) -> Tensor:
        """Where each sequence begins, (B,): chunks are counted from the first token that is no padding."""
        assert self.mask is not None
        return self.mask.long().argmax(1)

    def numbers(self) -> Tensor:
        """The new tokens' numbers within their sequences, from 0, (1 or B, T)."""
        steps = torch.arange(self.start, self.start + self.length, device=self.device)[None]
        return steps if self.mask is None else (steps - self._first()[:, None]).clamp(min=0)


class LayerContext(NamedTuple):
    """What attention in one layer is given beside its input."""

    rotary: Rotary | None = None
    """None in a layer without positions."""
    mask: Tensor | None = None
    """As `Positions.visible`."""
    temperature: Tensor | None = None
    """What queries are multiplied by, (1 or B, T, 1, 1)."""


def layer_contexts(config: ModelConfig, positions: Positions, cache: KVCache | None) -> list[LayerContext]:
    """One for each layer of a forward pass; layers of one kind share their tensors."""
    temperature = _temperature(config, positions)
    found = []
    for layer in range(config.n_layers):
        rotary = layer_rotary(config, layer, positions.start, positions.length, positions.device)
        n_keys = positions.length if cache is None else cache.layers[layer].held(positions.length)
        mask = positions.visible(config.layer_kind(layer), config.sliding_window or 0, n_keys)
        found.append(LayerContext(rotary, mask, temperature if rotary is None else None))
    return found


def _temperature(config: ModelConfig, positions: Positions) -> Tensor | None:
    """1 + scale ln(1 + floor(n / floor)) of the n-th token of a sequence, counted from 1 (Llama 4)."""
    found = config.attention_temperature
    if found is None:
        return None
    steps = torch.floor((positions.numbers() + 1) / found.floor)
    return (1 + found.scale * torch.log1p(steps))[..., None, None]
