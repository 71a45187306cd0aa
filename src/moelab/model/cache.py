"""Keys and values of the tokens already seen, so that a decode step computes only the new token's."""

import torch
from torch import Tensor

from moelab.architecture import ModelConfig


class LayerCache:
    """Room for the keys and values of one layer, (B, KV, capacity, A) each."""

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        self.keys, self.values = keys, values
        self.length = 0

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Store the new (B, KV, T, A) and return everything stored so far."""
        end = self.length + k.shape[2]
        self.keys[:, :, self.length : end] = k
        self.values[:, :, self.length : end] = v
        self.length = end
        return self.keys[:, :, :end], self.values[:, :, :end]


class KVCache:
    """One `LayerCache` per layer, allocated once for `capacity` tokens per sequence."""

    def __init__(
        self, config: ModelConfig, batch: int, capacity: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        self.last: Tensor | None = None
        """The last token ids (B, 1), which routers that look at words need."""
        self.word: Tensor | None = None
        """Key and length (B, 2) of the word that the last tokens belong to, where experts go by words."""
        shape = (batch, config.n_kv_heads, capacity, config.head_dim)
        self.layers = [
            LayerCache(torch.empty(shape, dtype=dtype, device=device), torch.empty(shape, dtype=dtype, device=device))
            for _ in range(config.n_layers)
        ]

    @property
    def length(self) -> int:
        """Tokens stored per sequence."""
        return self.layers[0].length
