"""The axes of a space: what a list of values may be in `space.yaml`, and its checks."""

from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from moelab.errors import InputError
from moelab.quantities import parse_count

MAX_AXIS = 100_000
"""Most values of one axis; counting more designs would take longer than planning."""


def values_of(value: Any) -> Any:
    """A list of numbers, one number, or {from, to, step}, which includes both ends it reaches."""
    if isinstance(value, dict):
        if set(value) - {"from", "to", "step"} or not {"from", "to"} <= set(value):
            raise ValueError(f"expected a list or {{from, to, step}}, got keys {sorted(map(str, value))}")
        try:
            first, last, step = (parse_count(value.get(key, 1)) for key in ("from", "to", "step"))
        except InputError as error:
            raise ValueError(str(error).removeprefix("value: ")) from None
        if step <= 0 or last < first:
            raise ValueError(f"expected from <= to and step > 0, got {value}")
        if (count := (last - first) // step + 1) > MAX_AXIS:
            raise ValueError(f"{count:,} values, more than the {MAX_AXIS:,} of an axis; widen its step")
        return tuple(range(first, last + 1, step))
    return tuple(value) if isinstance(value, list | tuple) else (value,)


def _distinct(value: tuple[Any, ...]) -> tuple[Any, ...]:
    if not value:
        raise ValueError("needs at least one value")
    return tuple(sorted(set(value)))


Axis = Annotated[tuple[Annotated[int, Field(gt=0)], ...], BeforeValidator(values_of), AfterValidator(_distinct)]
AxisOrZero = Annotated[tuple[Annotated[int, Field(ge=0)], ...], BeforeValidator(values_of), AfterValidator(_distinct)]
Ratios = Annotated[tuple[Annotated[float, Field(gt=0)], ...], BeforeValidator(values_of), AfterValidator(_distinct)]
