"""The coefficients of the serving model: few, physical, shared across models; fitted to measured rows or stated."""

from typing import Annotated

from pydantic import Field

from moelab.config import Config, Count, Positive

Share = Annotated[Positive, Field(le=1)]
Time = Annotated[float, Field(ge=0, le=1)]


class Coefficients(Config):
    """What a device and an engine reach. Shares are of the data sheet's rates; times in seconds.

    `matmul` and `experts` are the shares of peak arithmetic of dense matrices and of routed experts' grouped products;
    each expert that a step touches also computes `padding` rows that hold no token. `bandwidth` is the share of memory
    bandwidth in reading weights, `cache` and `latent_cache` in reading keys and values or latent vectors; `attention`
    is the share of bf16 arithmetic in attention. `link` is the share of the bandwidth between devices.

    A step takes `step` seconds whatever it does, `kernel` seconds for each kernel of each layer, `collective` seconds
    for each exchange between devices, and `request` seconds for each request. Activations move `passes` times between
    memory and chip in each layer. `imbalance` is the busiest device's load over the mean under expert parallelism;
    `max_batch` the requests per device, `reserved` the share of an answer for which memory is reserved at admission.
    """

    matmul: Share
    experts: Share
    padding: Annotated[float, Field(ge=0, le=1024)]
    bandwidth: Share
    cache: Share
    latent_cache: Share
    attention: Share
    link: Share
    kernel: Time
    step: Time
    collective: Time
    request: Time
    passes: Annotated[float, Field(ge=0, le=1000)]
    imbalance: Annotated[Positive, Field(ge=1, le=100)]
    max_batch: Count
    reserved: Share


PRIORS: dict[str, tuple[float, float]] = {
    "matmul": (0.65, 0.3),
    "experts": (0.45, 0.4),
    "padding": (32.0, 0.5),
    "bandwidth": (0.85, 0.06),
    "cache": (0.7, 0.2),
    "latent_cache": (0.5, 0.4),
    "attention": (0.45, 0.4),
    "link": (0.5, 0.4),
    "kernel": (4e-6, 0.4),
    "step": (1e-3, 1.0),
    "collective": (12e-6, 0.5),
    "request": (10e-6, 0.8),
    "passes": (20.0, 0.5),
    "imbalance": (1.3, 0.2),
}
"""Median and standard deviation of the logarithm, of each fitted coefficient before any row is seen: what large matrix
products, copies of memory, grouped products, launches in a CUDA graph and small all-reduces reach on data-centre GPUs.
Padding is half of the 64 rows that a warpgroup's product has on Hopper (wgmma.mma_async m64nNk16, PTX ISA): what an
expert's last tile wastes on average.
They carry what the rows do not determine; where rows do, their width hardly matters."""

KERNELS, LATENT_KERNELS, MOE_KERNELS = 10, 6, 8
"""Kernels of one layer: two norms, queries-keys-values, rotation and cache, attention and its reduction, output, gate
and up, activation, down. Latent attention adds its down and up projections and the two absorbed products; a MoE layer
adds router, choice, sort, gather, shared expert, combination and quantisation."""

CHUNK = 8192
"""Prompt tokens that one step reads at most: the default of vLLM, SGLang and TensorRT-LLM."""


def roofline(matmul: float, bandwidth: float, link: float, collective: float) -> Coefficients:
    """Shares of peak alone: no fixed cost, no padding, memory reserved for the mean length (version 0.1's model)."""
    return Coefficients(
        matmul=matmul,
        experts=matmul,
        padding=0.0,
        bandwidth=bandwidth,
        cache=bandwidth,
        latent_cache=bandwidth,
        attention=matmul,
        link=link,
        kernel=0.0,
        step=0.0,
        collective=collective,
        request=0.0,
        passes=0.0,
        imbalance=1.0,
        max_batch=512,
        reserved=0.5,
    )
