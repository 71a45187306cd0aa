"""The base of every configuration: frozen, strict about keys, YAML in and out, errors in one line."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Self

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from moelab.complaints import one_line
from moelab.errors import InputError
from moelab.files import read_text, write_text
from moelab.notebook import html_table, short_repr
from moelab.printable import short
from moelab.quantities import (
    MOST_CONTEXT,
    MOST_DEVICES,
    MOST_FLOPS,
    MOST_TOKENS,
    check_at_most,
    parse_bytes,
    parse_count,
    parse_number,
    parse_seconds,
    parse_share,
)
from moelab.yaml_reader import parse_yaml


def read_by(parse: Callable[[str | float], float]) -> BeforeValidator:
    """For a field written as people write quantities: `parse` is one of `moelab.quantities`."""

    def read(value: Any) -> Any:
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise ValueError(f"expected a number, got {short(value)}")
        try:
            return parse(value)
        except InputError as error:
            raise _value_error(error) from None

    return BeforeValidator(read)


def at_most(most: float) -> AfterValidator:
    """For a positive field that means nothing beyond `most`: the message names the allowed range."""

    def check(value: float) -> float:
        try:
            check_at_most(value, most)
        except InputError as error:
            raise _value_error(error) from None
        return value

    return AfterValidator(check)


def _value_error(error: InputError) -> ValueError:
    """Pydantic names the field itself."""
    return ValueError(str(error).removeprefix("value: "))


Count = Annotated[int, read_by(parse_count), Field(gt=0)]
"""A positive whole number; 300B and 1e9 are accepted."""
CountOrZero = Annotated[int, read_by(parse_count), Field(ge=0)]
Number = Annotated[float, read_by(parse_number)]
Positive = Annotated[float, read_by(parse_number), Field(gt=0)]
NonNegative = Annotated[float, read_by(parse_number), Field(ge=0)]
Fraction = Annotated[float, read_by(parse_share), Field(ge=0, le=1)]
"""0.1 or 10%."""
Bytes = Annotated[float, read_by(parse_bytes), Field(gt=0)]
"""80GB is 80e9, 80GiB is 80 x 2**30; a bare number is bytes."""
Seconds = Annotated[float, read_by(parse_seconds), Field(gt=0)]
"""50ms, 2s; in text a time needs its unit."""


Flops = Annotated[Positive, at_most(MOST_FLOPS)]
Tokens = Annotated[Positive, at_most(MOST_TOKENS)]
TokenCount = Annotated[Count, at_most(MOST_TOKENS)]
Context = Annotated[Count, at_most(MOST_CONTEXT)]
"""Tokens of one sequence."""
Devices = Annotated[Count, at_most(MOST_DEVICES)]


class Config(BaseModel):
    """Keyword-only, frozen, hashable by content; an unknown key is an error that names the nearest known one."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)

    def __init__(self, /, **fields: Any) -> None:
        """Validate keywords. Raises InputError with one line naming the class, the fields and what is allowed."""
        try:
            super().__init__(**fields)
        except ValidationError as error:
            raise InputError(one_line(error, type(self), type(self).__name__)) from None

    # Pydantic must not build nested configs through it: an error inside one would lose the field's full name.
    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]

    @classmethod
    def parse(cls, value: Any, where: str = "") -> Self:
        """Validate plain data. Raises InputError with one line naming the fields and what is allowed."""
        if not isinstance(value, dict):
            raise InputError(f"{where or cls.__name__}: expected keys and values, got {type(value).__name__}")
        try:
            return cls.model_validate(value)
        except ValidationError as error:
            raise InputError(one_line(error, cls, where)) from None

    @classmethod
    def from_yaml(cls, path: str | Path, what: str = "config") -> Self:
        """Read a YAML file. Raises InputError naming `what` the file is, the file and the field."""
        return cls.parse(load_yaml(path, what), str(path))

    def to_dict(self) -> dict[str, Any]:
        """Plain data that `parse` reads back; fields at their None default are left out."""
        return self.model_dump(mode="json", exclude_none=True)

    def to_yaml(self, path: str | Path) -> None:
        """Write YAML atomically."""
        write_text(Path(path), dump_yaml(self.to_dict()))

    def __repr__(self) -> str:
        return short_repr(self, **self._given())

    def __str__(self) -> str:
        return repr(self)

    def _repr_html_(self) -> str:
        rows = [(name, repr(value)) for name, value in self._given().items()]
        return html_table(["field", "value"], rows, title=type(self).__name__)

    def _given(self) -> dict[str, Any]:
        """The fields that differ from their defaults."""
        fields = {name: (getattr(self, name), field.default) for name, field in type(self).model_fields.items()}
        return {name: value for name, (value, default) in fields.items() if value != default}

    def replace(self, **changes: Any) -> Self:
        """A validated copy with some fields changed."""
        return type(self).parse({**self.to_dict(), **changes})


def load_yaml(path: str | Path, what: str = "config") -> dict[str, Any]:
    """Read a YAML mapping. Raises InputError naming `what` the file is, the file and the line."""
    return parse_mapping(read_text(Path(path), what), path, what)


def parse_mapping(text: str, path: str | Path, what: str = "config") -> dict[str, Any]:
    """`load_yaml` for the text of the file."""
    value = parse_yaml(text, f"{what}: {path}")
    if not isinstance(value, dict):
        raise InputError(f"{what}: {path} must hold keys and values, not {type(value).__name__}")
    return value


def dump_yaml(value: dict[str, Any]) -> str:
    """YAML text with keys in their given order; `parse_yaml` and PyYAML's own reader give the same value back."""
    return str(yaml.dump(value, Dumper=_Writer, sort_keys=False, allow_unicode=True, width=110))


# libyaml's, where PyYAML was built with it, writes the same text in a third of the time.
_Dumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


class _Writer(_Dumper):
    """Quotes text with the rarer line breaks, which PyYAML else writes as they are and reads as spaces."""


def _text(writer: _Writer, text: str) -> yaml.ScalarNode:
    style = '"' if any(character in text for character in "\x85\u2028\u2029") else None
    return writer.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Writer.add_representer(str, _text)


def override(value: dict[str, Any], assignments: list[str]) -> dict[str, Any]:
    """Apply `a.b=3` assignments to nested plain data and return a copy. Values are read as YAML."""
    result = {**value}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals or not key.strip():
            raise InputError(f"--set: expected KEY=VALUE, got {assignment!r}")
        try:
            parsed = parse_yaml(text, "value")
        except InputError:
            raise InputError(f"--set {short(key)[1:-1]}: cannot read the value {short(text)}") from None
        _assign(result, key.strip().split("."), parsed)
    return result


def _assign(target: dict[str, Any], keys: list[str], value: Any) -> None:
    for key in keys[:-1]:
        inner = target.get(key)
        target[key] = {**inner} if isinstance(inner, dict) else {}
        target = target[key]
    target[keys[-1]] = value
