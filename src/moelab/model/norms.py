"""The norms of a model: RMSNorm (arXiv 1910.07467), its 1 + weight form (Gemma), and LayerNorm."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from moelab.architecture import ModelConfig
from moelab.model.native import usable
from moelab.model.native.ops import RmsNorm


class RMSNorm(nn.Module):
    """x / rms(x) * gain over the last dimension; the gain is the weight."""

    initial = 1.0
    """What the weight is before training: a gain of 1."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width))
        self.eps = eps

    @property
    def gain(self) -> Tensor:
        """What normalised values are multiplied by, (width,)."""
        return self.weight

    def forward(self, x: Tensor) -> Tensor:
        gain = self.gain
        if usable(x, gain):
            return RmsNorm.apply(x, gain, self.eps)
        return F.rms_norm(x, gain.shape, gain.to(x.dtype), self.eps)


class PlusOneRMSNorm(RMSNorm):
    """x / rms(x) * (1 + weight): weight decay pulls the gain to 1, not to 0 (Gemma, Qwen3-Next)."""

    initial = 0.0

    @property
    def gain(self) -> Tensor:
        return 1.0 + self.weight


def residual_norm(config: ModelConfig) -> nn.Module:
    """A norm of the residual stream, (..., D) -> (..., D), of the kind that `config.norm` names."""
    if config.norm == "layer":
        return nn.LayerNorm(config.d_model, eps=config.norm_eps, bias=bool(config.norm_bias))
    return rms_norm(config, config.d_model)


def rms_norm(config: ModelConfig, width: int) -> RMSNorm:
    """A norm inside attention: RMSNorm, with 1 + weight where the model's norms have it."""
    return (PlusOneRMSNorm if config.norm == "rms_plus_one" else RMSNorm)(width, config.norm_eps)
