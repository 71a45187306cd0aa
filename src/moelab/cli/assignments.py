"""NAME=VALUE options with numeric values, as `laws --set`, `fit --fix` and `predict --set` take them."""

from collections.abc import Iterable

from moelab.errors import InputError
from moelab.quantities import parse_number


def parse_assignments(texts: Iterable[str], option: str) -> dict[str, float]:
    """Name -> number (1e9, 300B). Raises InputError naming the option and what is wrong, a name given twice too."""
    result = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise InputError(f"{option}: expected NAME=VALUE, got {text!r}")
        if name.strip() in result:
            raise InputError(f"{option}: {name.strip()} is given twice")
        result[name.strip()] = parse_number(value, f"{option} {name.strip()}")
    return result
