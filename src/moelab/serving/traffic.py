"""What is asked of a served model: lengths, limits on latency, precision, devices."""

from typing import Annotated, Literal

from pydantic import Field

from moelab.config import Config, Context, Count, CountOrZero, Devices, Positive, Seconds
from moelab.quantities import MOST_CONTEXT

Precision = Literal["fp32", "bf16", "fp16", "fp8", "int8", "int4"]


class Traffic(Config):
    """Requests of `prompt` tokens answered by `output` tokens, arriving steadily.

    `tpot` and `ttft` limit the time per output token and to the first one. `gpus` None tries powers of two up to
    `max_gpus`. `imbalance` is the load of the busiest device over the mean under expert parallelism.
    """

    prompt: CountOrZero = Field(default=1024, le=MOST_CONTEXT)
    output: Context = 256
    tpot: Seconds | None = None
    ttft: Seconds | None = None
    precision: Precision = "bf16"
    kv_precision: Precision = "bf16"
    batch: Count | None = Field(default=None, le=10**9)
    max_batch: Count = Field(default=512, le=10**9, description="requests per device that the server keeps in flight")
    gpus: Devices | None = None
    max_gpus: Devices = 64
    imbalance: Annotated[Positive, Field(ge=1, le=10**6)] = 1.0

    @property
    def context(self) -> float:
        """Tokens in the KV cache of one request, on average over its life (requests are of all ages)."""
        return self.prompt + self.output / 2
