"""The utilisation (MFU) that a plan trains at: one share, shares by the width of an expert, or a prediction."""

from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from moelab.config import Config, read_by
from moelab.errors import InputError
from moelab.quantities import format_number, parse_share
from moelab.serving.hardware import Hardware
from moelab.serving.training_time import training_peak

PREDICTED = "predicted"
"""The MFU that stands for a prediction of each design's own."""
MFU_TABLE = "{dense: 0.4, experts: {512: 0.2, 2048: 0.35}}"
MOST = 16.0
"""Any arithmetic's peak over the bf16 peak is below this; `most_mfu` is the limit of given devices."""
Share = Annotated[float, read_by(parse_share), Field(gt=0, le=MOST)]
"""Of the bf16 peak."""


class MfuTable(Config):
    """Measured shares of the bf16 peak in training: `dense`, and by the width of an expert, interpolated in its
    logarithm. They exceed 1 where narrower arithmetic does."""

    dense: Share
    experts: dict[int, Share]

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.experts or min(self.experts) <= 0:
            raise ValueError("mfu: expected dense and, by expert width, shares of the bf16 peak such as 0.4")
        return self

    @property
    def shares(self) -> tuple[float, ...]:
        """Every share of the table."""
        return (self.dense, *self.experts.values())


def read_mfu(value: Any) -> Any:
    """A share above 0, or a table. Pydantic's own message for a union would name both types."""
    if value == PREDICTED or isinstance(value, MfuTable):
        return value
    if isinstance(value, dict):
        try:
            return MfuTable.parse(value)
        except InputError as error:
            raise ValueError(str(error).removeprefix("mfu: ")) from None
    allowed = f"must be a share above 0 such as 0.4, or a table {MFU_TABLE}, or {PREDICTED}, got {value}"
    try:
        share = parse_share(value) if isinstance(value, int | float | str) else float("nan")
    except InputError:
        raise ValueError(allowed) from None
    if isinstance(value, bool) or not 0 < share <= MOST:
        raise ValueError(allowed)
    return share


def most_mfu(device: Hardware | None, precision: str) -> float:
    """The largest share of the bf16 peak: the peak of the arithmetic over it; 1 where no device is given."""
    return 1.0 if device is None else training_peak(device, precision) / device.bf16


def check_mfu(mfu: float | MfuTable | str, device: Hardware | None, precision: str) -> None:
    """Raises ValueError where a stated share is beyond the peak of the arithmetic on this device."""
    shares = mfu.shares if isinstance(mfu, MfuTable) else () if isinstance(mfu, str) else (mfu,)
    most = most_mfu(device, precision)
    if shares and max(shares) > most * (1 + 1e-9):
        where = "without devices" if device is None else f"on {device.name}"
        hint = "; train_precision names narrower arithmetic" if precision == "bf16" and device is not None else ""
        raise ValueError(
            f"mfu: must be at most {format_number(most)} of the bf16 peak in {precision} {where}, "
            f"got {format_number(max(shares))}{hint}"
        )
