"""Numbers as people write them: 1e21, 300B, 20M, 80GB, 50ms; and the way back, for tables and messages."""

import math
import re

from moelab.errors import InputError
from moelab.printable import short

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
_BANDWIDTH = {**_BYTES, "BIT": 1 / 8, "KBIT": 1e3 / 8, "MBIT": 1e6 / 8, "GBIT": 1e9 / 8, "TBIT": 1e12 / 8}
_FLOP_RATE = {"": 1.0, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18}
_SECONDS = {"": 1.0, "S": 1.0, "MS": 1e-3, "US": 1e-6, "MIN": 60.0, "H": 3600.0, "D": 86400.0}
MOST_FLOPS = 1e30
"""Training compute beyond which a number is a slip: thousands of times what any run has used."""
MOST_TOKENS = 1e18
"""Tokens of data or of traffic beyond which a number is a slip: thousands of times all text there is."""
MOST_CONTEXT = 10**9
"""Tokens of one sequence, prompt or answer beyond which a number is a slip."""
MOST_DEVICES = 10**6
MOST_PRICE = 1e6
"""Dollars per device-hour beyond which a price is a slip."""
_SHARE = {"": 1.0, "%": 0.01}
_CLOCK = re.compile(r"\s*(\d{1,6}):([0-5]\d):([0-5]\d)\s*\Z", re.ASCII)
_EXPONENT = re.compile(r"e\+0*(?=\d)")
_OCTAL = re.compile(r"\s*[+-]?0[\d_]")
_NUMBER = re.compile(r"\s*([+-]?(?:\d[\d_]*\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*([A-Za-z]*|%)\s*\Z")


def _parse(text: str | float, field: str, units: dict[str, float], example: str) -> float:
    if isinstance(text, bool) or not isinstance(text, int | float | str):
        raise InputError(f"{field}: expected a number such as {example}, got {short(text)}")
    if isinstance(text, int | float):
        value = float(text) if abs(text) < 1e308 else math.inf
    else:
        match = _NUMBER.match(text)
        unit = match.group(2).upper() if match else None
        if match is None or unit not in units:
            known = ", ".join(unit.lower() if units is _SECONDS else unit for unit in units if unit)
            suffixes = f" (suffixes: {known})" if known else ""
            raise InputError(f"{field}: expected a number such as {example}{suffixes}, got {short(text)}")
        if _OCTAL.match(text):
            raise InputError(f"{field}: write {short(text)} without its leading zero, which some read as octal")
        value = float(match.group(1)) * units[unit]
    if not math.isfinite(value):
        raise InputError(f"{field}: expected a finite number such as {example}, got {short(text)}")
    return value


def parse_number(text: str | float, field: str = "value") -> float:
    """A count such as 1e21, 300B or 20M (K, M, B=G, T are powers of a thousand)."""
    return _parse(text, field, _COUNT, "1e21, 300B or 20M")


def parse_count(text: str | float, field: str = "value") -> int:
    """A whole number, written as in `parse_number`."""
    value = parse_number(text, field)
    if value != math.floor(value):
        raise InputError(f"{field}: expected a whole number, got {short(text)}")
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
    """Seconds: 50ms, 2s, 5min, 1:30:00 (hours, minutes, seconds); a number that is no text is seconds.

    A text needs its unit: "50" would be doubtful, and so would "5:20".
    """
    clock = _CLOCK.match(text) if isinstance(text, str) else None
    if clock:
        hours, minutes, seconds = (int(part) for part in clock.groups())
        return 3600.0 * hours + 60 * minutes + seconds
    value = _parse(text, field, _SECONDS, "50ms")
    if isinstance(text, str) and text.strip()[-1].isdigit() and value:
        raise InputError(f"{field}: expected a time with its unit, such as {text.strip()}ms or {text.strip()}s")
    return value


def parse_bandwidth(text: str | float, field: str = "value") -> float:
    """Bytes per second: 3.35TB/s, or in bits 400Gbit/s, 400Gbps; a bare number is bytes per second."""
    if isinstance(text, str):
        text = re.sub(r"(/s|ps)\Z", "", re.sub(r"bps\Z", "bit", text.strip()))
        if text.endswith("b"):
            raise InputError(f"{field}: {text!r} may be bits or bytes; write {text[:-1]}B/s or {text}it/s")
    return _parse(text, field, _BANDWIDTH, "3.35TB/s or 400Gbit/s")


def parse_flop_rate(text: str | float, field: str = "value") -> float:
    """FLOPs per second: 989.4TFLOPs, 2.25 PFLOP/s, 312T; a bare number is FLOPs per second."""
    if isinstance(text, str):
        text = re.sub(r"(FLOPS?)?(/s)?\Z", "", text.strip(), count=1, flags=re.IGNORECASE)
    return _parse(text, field, _FLOP_RATE, "989.4T or 989.4TFLOPs")


def parse_price(text: str | float, field: str = "value") -> float:
    """Dollars per device-hour: 2.5, $2.50, $2.5/h."""
    if isinstance(text, str):
        text = re.sub(r"\s*/\s*h(our)?\Z", "", text.strip()).removeprefix("$")
    return _parse(text, field, {"": 1.0}, "2.5 or $2.5/h")


def parse_share(text: str | float, field: str = "value") -> float:
    """A share of a whole: 0.1, or 10%."""
    value = _parse(text, field, _SHARE, "0.1 or 10%")
    return float(f"{value:.15g}") if isinstance(text, str) and "%" in text else value  # 7% is 0.07


def check_at_most(value: float, most: float, field: str = "value") -> None:
    """Raises InputError naming the allowed range unless 0 < value <= most."""
    if not 0 < value <= most:
        raise InputError(f"{field}: must be above 0 and at most {_exact(most)}, got {_exact(value)}")


def _exact(value: float) -> str:
    """A limit or what was given: whole numbers below a million in digits, else six digits with a unit."""
    if not math.isfinite(value):
        return f"{value:g}"
    return f"{value:.0f}" if abs(value) < 1e6 and value == int(value) else format_number(value, 6)


def format_number(value: float | None, digits: int = 3) -> str:
    """Short text for people: 1.28B, 47.2M, 512, 1.2e21."""
    if value is None or not math.isfinite(value):
        return "-"
    rounded = float(f"{value:.{digits}g}")  # 999.9M is 1B in three digits
    for unit, size in (("T", 1e12), ("B", 1e9), ("M", 1e6), ("K", 1e3)):
        if size <= abs(rounded) < 1000 * size and not (unit == "K" and abs(value) < 1e4 and value == int(value)):
            return f"{rounded / size:.{digits}g}{unit}"
    if abs(value) >= 1e15 or 0 < abs(value) < 1e-3:
        return format_flops(value, digits)
    return f"{value:.0f}" if value == int(value) else f"{value:.{digits + 1}g}"


def format_dollars(value: float | None) -> str:
    """Dollars in three digits, zeros included, so that a value and its interval match: $1.47, $23.0M."""
    if value is None or not math.isfinite(value):
        return "-"
    rounded = float(f"{value:.3g}")
    for unit, size in (("T", 1e12), ("B", 1e9), ("M", 1e6), ("K", 1e3), ("", 1.0)):
        if abs(rounded) >= size or not unit:
            digits = f"{rounded / size:#.3g}".rstrip(".") if 1e-4 <= abs(rounded) < 1e15 else f"{rounded:.3g}"
            return f"${digits}{unit}"
    raise AssertionError("every value has a unit")


def format_flops(value: float, digits: int = 3) -> str:
    """Compute as people write it: 1e21, 2.94e12."""
    return _EXPONENT.sub("e", f"{value:.{digits}g}")


def format_outside(distance: float | None) -> str:
    """A log10 distance outside the fitted range in words: inside (less than 1.2 % off), 3.2x, unknown."""
    if distance is None or distance != distance:
        return "unknown"
    if distance < 0.005:
        return "inside"
    factor = float(f"{10 ** min(distance, 300.0):.3g}")
    shown = f"{factor:g}" if factor < 1e3 else f"{factor:,.0f}" if factor < 1e6 else format_flops(factor)
    return f"{shown}x" if distance < 300 else "beyond measure"


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
