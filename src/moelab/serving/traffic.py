"""What is asked of a served model: lengths, limits on latency, precision, devices."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from moelab.config import Config, Count, CountOrZero, Positive
from moelab.errors import InputError
from moelab.quantities import parse_seconds

Precision = Literal["fp32", "bf16", "fp16", "fp8", "int8", "int4"]


def _seconds(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"expected a time such as 50ms, got {value!r}")
    try:
        return parse_seconds(value)
    except InputError as error:
        raise ValueError(str(error).removeprefix("value: ")) from None


Seconds = Annotated[float, BeforeValidator(_seconds), Field(gt=0)]


class Traffic(Config):
    """Requests of `prompt` tokens answered by `output` tokens, arriving steadily.

    `tpot` and `ttft` limit the time per output token and to the first one. `gpus` None tries powers of two up to
    `max_gpus`. `imbalance` is the load of the busiest device over the mean under expert parallelism.
    """

    prompt: CountOrZero = 1024
    output: Count = 256
    tpot: Seconds | None = None
    ttft: Seconds | None = None
    precision: Precision = "bf16"
    kv_precision: Precision = "bf16"
    batch: Count | None = None
    max_batch: Count = Field(default=512, description="requests per device that the server keeps in flight")
    gpus: Count | None = None
    max_gpus: Count = 64
    imbalance: Annotated[Positive, Field(ge=1)] = 1.0

    @property
    def context(self) -> float:
        """Tokens in the KV cache of one request, on average over its life (requests are of all ages)."""
        return self.prompt + self.output / 2
