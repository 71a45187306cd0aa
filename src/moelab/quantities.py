"""Numbers as people write them: 1e21, 300B, 20M, 80GB, 50ms; and the way back, for tables and messages."""

import math
import re

from moelab.errors import InputError

_COUNT = {"": 1.0, "K": 1e3, "M": 1e6, "B": 1e9, "G": 1e9, "T": 1e12}
_BYTES = {
    "": 1.0,
    "B": 1.0,
    "KB": 1e3,
    "MB": 1e6,
    "GB": 1e9,
    "TB": 1e12,
    "KIB": 2**10,
    "MIB": 2**20,
    "GIB": 2**30,
}
_SECONDS = {"": 1.0, "S": 1.0, "MS": 1e-3, "US": 1e-6, "MIN": 60.0, "H": 3600.0, "D": 86400.0}
_NUMBER = re.compile(r"\s*([+-]?(?:\d[\d_]*\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*([A-Za-z]*)\s*\Z")


def _parse(text: str | float, field: str, units: dict[str, float], example: str) -> float:
    if isinstance(text, bool):
        raise InputError(f"{field}: expected a number such as {example}, got {text}")
    if isinstance(text, int | float):
        value = float(text)
    else:
        match = _NUMBER.match(text)
        unit = match.group(2).upper() if match else None
        if match is None or unit not in units:
            known = ", ".join(u for u in units if u)
            raise InputError(f"{field}: expected a number such as {example} (suffixes: {known}), got {text!r}")
        value = float(match.group(1)) * units[unit]
    if not math.isfinite(value):
        raise InputError(f"{field}: expected a finite number such as {example}, got {text!r}")
    return value


def parse_number(text: str | float, field: str = "value") -> float:
    """A count such as 1e21, 300B or 20M (K, M, B=G, T are powers of a thousand)."""
    return _parse(text, field, _COUNT, "1e21, 300B or 20M")


def parse_count(text: str | float, field: str = "value") -> int:
    """A whole number, written as in `parse_number`."""
    value = parse_number(text, field)
    if value != math.floor(value):
        raise InputError(f"{field}: expected a whole number, got {text!r}")
    # Plain digits are taken exactly: a float holds only 53 bits.
    if isinstance(text, int):
        return text
    if isinstance(text, str) and text.strip().lstrip("+-").isdigit():
        return int(text)
    return int(value)


def parse_bytes(text: str | float, field: str = "value") -> float:
    """Bytes: 80GB is 80e9, 80GiB is 80 x 2**30; a bare number is bytes."""
    return _parse(text, field, _BYTES, "80GB")


def parse_seconds(text: str | float, field: str = "value") -> float:
    """Seconds: 50ms, 2s, 5min; a number that is no text is seconds, a text needs its unit: "50" would be doubtful."""
    value = _parse(text, field, _SECONDS, "50ms")
    if isinstance(text, str) and text.strip()[-1].isdigit() and value:
        raise InputError(f"{field}: expected a time with its unit, such as {text.strip()}ms or {text.strip()}s")
    return value


def format_number(value: float | None, digits: int = 3) -> str:
    """Short text for people: 1.28B, 47.2M, 512, 1.2e+21."""
    if value is None or not math.isfinite(value):
        return "-"
    rounded = float(f"{value:.{digits}g}")  # 999.9M is 1B in three digits
    for unit, size in (("T", 1e12), ("B", 1e9), ("M", 1e6), ("K", 1e3)):
        if size <= abs(rounded) < 1000 * size and not (unit == "K" and abs(value) < 1e4 and value == int(value)):
            return f"{rounded / size:.{digits}g}{unit}"
    if abs(value) >= 1e15 or 0 < abs(value) < 1e-3:
        return f"{value:.{digits}g}"
    return f"{value:.0f}" if value == int(value) else f"{value:.{digits + 1}g}"


def format_bytes(value: float | None) -> str:
    """46.7 GB, 12 MB."""
    if value is None:
        return "-"
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if abs(value) >= 0.9995 * size:  # rounds to three digits as a whole unit: 1 GB, never 1e+03 MB
            return f"{value / size:.3g} {unit}"
    return f"{value:.0f} B"


def format_seconds(value: float | None) -> str:
    """4 min 05 s, 2 h 10 min, 35 ms."""
    if value is None:
        return "-"
    if value < 1:
        return f"{value * 1e3:.3g} ms"
    if value < 60:
        return f"{value:.3g} s"
    minutes, seconds = divmod(round(value), 60)
    if minutes < 60:
        return f"{minutes} min {seconds:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours < 48 else f"{value / 86400:.1f} days"
