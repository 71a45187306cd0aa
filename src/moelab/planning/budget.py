"""What may be spent: compute, parameters, memory, data. Serving limits live in `planning.serve`."""

from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, model_validator

from moelab.config import Config, Count, CountOrZero, Positive
from moelab.errors import InputError
from moelab.quantities import parse_bytes

DEFAULT_EPOCHS = 4.0
"""Up to four epochs, repeated tokens are worth almost as much as new ones (arXiv 2305.16264)."""


def _bytes(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"expected bytes such as 80GB, got {value!r}")
    try:
        return parse_bytes(value)
    except InputError as error:
        raise ValueError(str(error).removeprefix("value: ")) from None


Bytes = Annotated[float, BeforeValidator(_bytes), Field(gt=0)]


class Budget(Config):
    """Limits of one plan; what is None is unlimited. At least `flops` must be given.

    A design trains for D = min(flops / FLOPs per token, unique_tokens x max_epochs, max_tokens) tokens. With
    `serve_flops_tokens` the compute also pays for that many served tokens, each costing one forward pass
    (6 N_a D + 2 N_a D_served = F in arXiv 2502.05172). `max_memory` holds weights at `precision` and the KV cache of
    one sequence of `context` tokens. All FLOPs are exact counts at the space's sequence length.
    """

    flops: Positive
    max_params: Positive | None = None
    max_active: Positive | None = None
    max_memory: Bytes | None = None
    precision: str = "bf16"
    context: Count | None = Field(default=None, description="tokens of KV cache; null: the space's seq_len")
    max_tokens: Positive | None = None
    min_tokens_per_active: Positive | None = None
    unique_tokens: Positive | None = None
    max_epochs: Positive | None = None
    serve_flops_tokens: CountOrZero = 0

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.max_epochs is not None and self.unique_tokens is None:
            raise ValueError("max_epochs: needs unique_tokens, the tokens that may be repeated")
        return self

    @property
    def max_data(self) -> float:
        """Tokens that the data allows: unique tokens times epochs (4 unless given); infinite where unlimited."""
        if self.unique_tokens is None:
            return float("inf")
        return self.unique_tokens * (DEFAULT_EPOCHS if self.max_epochs is None else self.max_epochs)

    def scaled(self, limit: str, factor: float) -> "Budget":
        """The same budget with one limit relaxed."""
        field = LIMITS[limit]
        return self.model_copy(update={field: getattr(self, field) * factor})


LIMITS = {
    "compute": "flops",
    "data": "unique_tokens",
    "tokens": "max_tokens",
    "params": "max_params",
    "active": "max_active",
    "memory": "max_memory",
    "tokens_per_active": "min_tokens_per_active",
}
"""The name of a limit in `binding`, and the field of the budget that sets it."""
