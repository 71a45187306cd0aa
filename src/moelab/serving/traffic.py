"""What is asked of a served model: lengths, limits on latency, precision, devices."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator
from pydantic.functional_validators import AfterValidator, BeforeValidator

from moelab.architecture import ModelConfig
from moelab.architecture.memory import weights_precision
from moelab.config import Config, Context, Count, CountOrZero, Devices, Fraction, Positive, Seconds
from moelab.quantities import MOST_CONTEXT
from moelab.serving.calibration import Calibration

Precision = Literal["fp32", "bf16", "fp16", "fp8", "int8", "int4", "mxfp4", "nvfp4"]
Engine = Literal["tensorrt-llm", "sglang", "vllm"]


GraphSizes = Annotated[
    tuple[Count, ...],
    BeforeValidator(lambda value: value.split(",") if isinstance(value, str) else value),
    AfterValidator(lambda sizes: tuple(sorted(set(sizes)))),
    Field(min_length=1, max_length=1000),
]
"""Batches in ascending order, from a list or a text such as 8,16,32."""


class Traffic(Config):
    """Requests of `prompt` tokens answered by `output` tokens, arriving steadily.

    `tpot` and `ttft` limit the time per output token and to the first one. `gpus` None tries powers of two up to
    `max_gpus`; `parallel` None tries tensor and expert parallelism. `imbalance` is the load of the busiest device over
    the mean under expert parallelism, `max_batch` the requests per device that the server keeps in flight, `engine` the
    server: None takes the calibration's. `graph_sizes` are the batches of a device for which the server captured CUDA
    graphs: a step without prompts is padded to the next. None: not padded, as all engines capture every eighth or
    sixteenth batch by default. `cached` is the share of prompt tokens found in a prefix cache. `draft`
    further tokens are guessed in each step by layers of multi-token prediction, each kept with the probability
    `acceptance` if those before it were. `disaggregated` devices for prompts leave the others to decode alone. No
    measured rows support `cached`, `draft` and `disaggregated`.
    """

    prompt: CountOrZero = Field(default=1024, le=MOST_CONTEXT)
    output: Context = 256
    tpot: Seconds | None = None
    ttft: Seconds | None = None
    precision: Precision = "bf16"
    kv_precision: Precision = "bf16"
    batch: Count | None = Field(default=None, le=10**9)
    max_batch: Count | None = Field(default=None, le=10**9, description="requests per device kept in flight")
    gpus: Devices | None = None
    max_gpus: Devices = 64
    parallel: Literal["tensor", "expert"] | None = None
    imbalance: Annotated[Positive, Field(ge=1, le=10**6)] | None = None
    engine: Engine | None = None
    graph_sizes: GraphSizes | None = Field(default=None, description="batches of the captured CUDA graphs")
    cached: Fraction = 0.0
    draft: Annotated[CountOrZero, Field(le=64)] = 0
    acceptance: Fraction | None = None
    disaggregated: bool = False

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.draft > 0) != (self.acceptance is not None):
            raise ValueError("acceptance: goes with draft, the tokens guessed in each step; give both or neither")
        return self

    @model_serializer(mode="wrap")
    def _written(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Keys that version 0.1 wrote stay where they are None."""
        return {"max_batch": None, "imbalance": None} | write(self)

    @property
    def words(self) -> str:
        """What is assumed of the requests and of how they are served."""
        return (
            f"prompts of {self.prompt:,} tokens, answers of {self.output:,}, weights in {self.precision}, KV cache in "
            f"{self.kv_precision}"
        )

    @property
    def context(self) -> float:
        """Tokens in the KV cache of one request, on average over its life (requests are of all ages)."""
        return self.prompt + self.output / 2

    @property
    def reads(self) -> float:
        """Prompt tokens that a request computes."""
        return self.prompt * (1 - self.cached)

    @property
    def produced(self) -> float:
        """Output tokens of one request and step: 1 + a + ... + a^draft (arXiv 2211.17192)."""
        return float(sum((self.acceptance or 0.0) ** k for k in range(self.draft + 1)))

    @property
    def uncalibrated(self) -> list[str]:
        """The modes in use that no measured rows support."""
        names = {"cached": self.cached > 0, "draft": self.draft > 0, "disaggregated": self.disaggregated}
        return [name for name, used in names.items() if used]

    def for_model(self, model: ModelConfig) -> "Traffic":
        """As this model is computed: mxfp4 stores experts alone, so a dense model is all in 16 bits."""
        precision = weights_precision(model, self.precision)
        return self if precision == self.precision else self.replace(precision=precision)

    def uneven(self, calibration: Calibration) -> float:
        """Load of the busiest device over the mean under expert parallelism."""
        return calibration.coefficients.imbalance if self.imbalance is None else self.imbalance

    def most(self, calibration: Calibration) -> int:
        """Requests per device that are kept in flight at most."""
        return calibration.coefficients.max_batch if self.max_batch is None else self.max_batch
