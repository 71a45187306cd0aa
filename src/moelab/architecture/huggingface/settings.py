"""The settings of one config.json: typed look-ups, with the defaults of its class and errors that name the key."""

from collections.abc import Mapping
from typing import Any, NoReturn

from moelab.errors import InputError
from moelab.printable import short
from moelab.quantities import check_at_most

Values = Mapping[str, Any]
MOST_LAYERS = 2**16
"""As many layers as a `ModelConfig` may have: lists of so many stay short."""


class Settings:
    """The keys of a config.json over the defaults of its class. Every error is an InputError of one line: file, key,
    what is allowed, what was found. A key that stands there as null is null: the default is for missing keys. `parts`
    are the defaults of mappings inside."""

    def __init__(self, values: Values, defaults: Values, where: str, parts: Values | None = None) -> None:
        self.values, self.defaults, self.where, self.parts = values, defaults, where, parts or {}

    def has(self, key: str) -> bool:
        """Whether the file itself gives this key a value."""
        return self.values.get(key) is not None

    def get(self, key: str) -> Any:
        """The value as it stands; None where neither the file nor the class has one."""
        return self.values[key] if key in self.values else self.defaults.get(key)

    def first(self, *keys: str) -> str:
        """Of several names for one setting the one that the file uses, else the first."""
        return next((key for key in keys if key in self.values), keys[0])

    def wrong(self, key: str, expected: str) -> NoReturn:
        """Raise the error of a value that is not allowed."""
        if self.get(key) is None:
            raise InputError(f"{self.where}: {key}: is required, {expected}")
        raise InputError(f"{self.where}: {key}: expected {expected}, got {short(self.get(key))}")

    def refuse(self, key: str, why: str) -> NoReturn:
        """Raise the error of what moelab cannot represent."""
        raise InputError(f"{self.where}: {key}: moelab cannot represent {why}")

    def count(self, key: str, least: int = 1) -> int:
        """A whole number of at least `least`."""
        value = self.get(key)
        whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
        if isinstance(value, bool) or not whole or value < least:
            self.wrong(key, "a positive whole number" if least else "a whole number, at least 0")
        if key.endswith(("n_layers", "hidden_layers")):
            check_at_most(value, MOST_LAYERS, f"{self.where}: {key}")
        return int(value)

    def count_or_none(self, key: str, least: int = 1) -> int | None:
        """A whole number, or None where it is null or missing."""
        return None if self.get(key) is None else self.count(key, least)

    def number(self, key: str) -> float:
        """A positive number."""
        value = self.get(key)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
            self.wrong(key, "a positive number")
        return float(value)

    def number_or_none(self, key: str) -> float | None:
        """A positive number, or None where it is null or missing."""
        return None if self.get(key) is None else self.number(key)

    def flag(self, key: str) -> bool:
        """True or false; null is false."""
        value = self.get(key)
        if value is not None and not isinstance(value, bool):
            self.wrong(key, "true or false")
        return bool(value)

    def choice(self, key: str, names: Mapping[Any, Any]) -> Any:
        """What one of a few words stands for."""
        value = self.get(key)
        if not isinstance(value, str) or value not in names:
            self.wrong(key, f"one of {', '.join(names)}")
        return names[value]

    def only(self, key: str, *allowed: Any) -> None:
        """Refuse a value of a setting that moelab knows one way of."""
        value = self.get(key)
        if value is not None and value not in allowed:
            self.wrong(key, " or ".join(str(one).lower() if isinstance(one, bool) else str(one) for one in allowed))

    def items(self, key: str) -> list[Any] | None:
        """A list, or None where it is null or missing."""
        value = self.get(key)
        if value is not None and not isinstance(value, list):
            self.wrong(key, "a list")
        return value

    def whole_numbers(self, key: str) -> list[int] | None:
        """A list of whole numbers, or None where it is null or missing."""
        values = self.items(key)
        if values is not None and any(isinstance(one, bool) or not isinstance(one, int) for one in values):
            self.wrong(key, "a list of whole numbers")
        return values

    def inner(self, key: str) -> "Settings":
        """The settings in a mapping under this key; where it is null or missing, those of the class."""
        value = self.values.get(key)
        if value is not None and not isinstance(value, dict):
            self.wrong(key, "keys and values")
        return Settings(value or self.defaults.get(key) or {}, self.parts.get(key, {}), f"{self.where}: {key}")
