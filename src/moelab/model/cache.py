"""Keys and values of the tokens already seen, so that a decode step computes only the new token's.

B sequences, KV heads of size A with values of size V; latent attention stores one head of kv_lora_rank +
qk_rope_head_dim numbers and no values.
"""

import torch
from torch import Tensor

from moelab.architecture import ModelConfig


class LayerCache:
    """Room for the keys (B, KV, capacity, A) and values (B, KV, capacity, V) of one layer."""

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

    def held(self, new: int) -> int:
        """How many keys `append` returns with `new` more tokens."""
        return self.length + new


class WindowCache(LayerCache):
    """Of a layer that sees a window or chunk: `keys` and `values` hold the last window - 1 tokens, however many come.

    `length` counts all tokens that were appended.
    """

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Return what is stored with the new (B, KV, T, A) behind it, and store the last of that."""
        stored, room = self.held(0), self.keys.shape[2]
        if stored:
            k = torch.cat((self.keys[:, :, :stored], k), 2)
            v = torch.cat((self.values[:, :, :stored], v), 2)
        self.length += k.shape[2] - stored
        kept = min(room, k.shape[2])
        self.keys[:, :, :kept] = k[:, :, k.shape[2] - kept :]
        self.values[:, :, :kept] = v[:, :, v.shape[2] - kept :]
        return k, v

    def held(self, new: int) -> int:
        """How many keys `append` returns with `new` more tokens."""
        return min(self.length, self.keys.shape[2]) + new


class KVCache:
    """One `LayerCache` per layer, allocated once for `capacity` tokens per sequence, or for a window where it ends."""

    def __init__(
        self, config: ModelConfig, batch: int, capacity: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        self.last: Tensor | None = None
        """The last token ids (B, 1), which routers that look at words need."""
        self.word: Tensor | None = None
        """Key and length (B, 2) of the word that the last tokens belong to, where experts go by words."""
        self.layers = []
        for layer in range(config.n_layers):
            kv_heads, key, value = cached_sizes(config, layer)
            window = None if config.layer_kind(layer) == "full" else config.sliding_window
            kind = LayerCache if window is None or window > capacity else WindowCache
            room = capacity if window is None or window > capacity else window - 1
            sizes = [(batch, kv_heads, room, width) for width in (key, value)]
            self.layers.append(kind(*(torch.empty(size, dtype=dtype, device=device) for size in sizes)))

    @property
    def length(self) -> int:
        """Tokens stored per sequence."""
        return self.layers[0].length

    @property
    def nbytes(self) -> int:
        """Bytes of all that is stored, full or not."""
        return sum(layer.keys.nbytes + layer.values.nbytes for layer in self.layers)


def cached_sizes(config: ModelConfig, layer: int) -> tuple[int, int, int]:
    """Key-value heads of layer number `layer`, and the sizes of a head's key and value in the cache."""
    if config.mla is not None:
        return 1, config.mla.kv_lora_rank + config.mla.qk_rope_head_dim, 0
    return config.kv_heads(layer), config.head_dim, config.head_dim
