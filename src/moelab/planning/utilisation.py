"""The utilisation (MFU) that a plan trains at: one share, shares by the width of an expert, or a prediction."""

from typing import Any, Self

from pydantic import model_validator

from moelab.config import Config, Fraction
from moelab.errors import InputError
from moelab.quantities import parse_number

PREDICTED = "predicted"
"""The MFU that stands for a prediction of each design's own."""
MFU_TABLE = "{dense: 0.4, experts: {512: 0.2, 2048: 0.35}}"


class MfuTable(Config):
    """Measured shares of peak in training: `dense`, and by the width of an expert, interpolated in its logarithm."""

    dense: Fraction
    experts: dict[int, Fraction]

    @model_validator(mode="after")
    def _check(self) -> Self:
        shares = [self.dense, *self.experts.values()]
        if not self.experts or min(self.experts) <= 0 or min(shares) <= 0:
            raise ValueError("mfu: expected dense and, by expert width, shares above 0 and at most 1")
        return self


def read_mfu(value: Any) -> Any:
    """A share above 0, or a table. Pydantic's own message for a union would name both types."""
    if value == PREDICTED or isinstance(value, MfuTable):
        return value
    if isinstance(value, dict):
        try:
            return MfuTable.parse(value)
        except InputError as error:
            raise ValueError(str(error).removeprefix("mfu: ")) from None
    allowed = f"must be above 0 and at most 1, or a table {MFU_TABLE}, or {PREDICTED}, got {value}"
    try:
        share = parse_number(value) if isinstance(value, int | float | str) else float("nan")
    except InputError:
        raise ValueError(allowed) from None
    if isinstance(value, bool) or not 0 < share <= 1:
        raise ValueError(allowed)
    return share
