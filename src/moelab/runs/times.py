"""Dates and times in text columns: compared as times where both sides are, with one line of advice where one is not."""

import re
from collections import deque

import polars as pl

from moelab.errors import InputError
from moelab.printable import cut

ADVICE = "a date stands in quotes as '2024-01-31', a time as '2024-01-31 10:00:00'"
_TIME = r"^\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:Z| ?UTC|\+00:?00)?)?$"
_OTHER = (
    r"^(?:\d{1,2}[./-]\d{1,2}[./-](?:\d{4}|\d\d)|\d{4}[./]\d{1,2}[./]\d{1,2}|\d{4}-\d-\d{1,2}|\d{4}-\d\d-\d)(?:\D.*)?$"
)
_ZONED = r"^\d{4}-\d\d-\d\d[T ]\d\d:\d\d.*[+-]\d\d:?\d\d$"
_ORDERS = ("<", "<=", ">", ">=")
_seen: deque[tuple[pl.Series, pl.Series | None]] = deque(maxlen=4)


def are_times(texts: pl.Series) -> bool:
    """Whether every known value is a date or a time as ISO 8601 writes it, in one time zone."""
    return _all_match(texts, _TIME)


def comparable(sign: str, left: pl.Series, right: pl.Series) -> tuple[pl.Series, pl.Series]:
    """Two columns of text as they compare: times in one form, in which midnight is the day; other text as it is.

    Raises InputError where `sign` asks for an order that the text of dates does not have.
    """
    one, other = _as_times(left), _as_times(right)
    if one is not None and other is not None:
        return one, other
    if sign in _ORDERS:
        for column, times, opposite in ((left, one, right), (right, other, left)):
            if times is not None and opposite.count():
                raise InputError(f"{sign}: {_first(opposite)} is compared with dates; {ADVICE}, all in one time zone")
            if _all_match(column, _OTHER) or _all_match(column, _ZONED):
                raise InputError(f"{sign}: {_first(column)} does not order as text; {ADVICE}, all in one time zone")
    return left, right


def _as_times(texts: pl.Series) -> pl.Series | None:
    """The column in the uniform form; None for other text. The last ones are kept: conditions repeat them."""
    for known, found in _seen:
        if known is texts:
            return found
    one = texts[0] if texts.len() else None
    if one is not None and not texts.null_count() and (texts == one).all():
        return pl.Series([_uniform(one)]).new_from_index(0, texts.len()) if re.match(_TIME, one) else None
    found = pl.Series(map(_uniform, texts), dtype=pl.String) if are_times(texts) else None
    _seen.append((texts, found))
    return found


def _uniform(time: str | None) -> str | None:
    """2024-01-31T10:00Z and 2024-01-31 10:00:00.000 as 2024-01-31 10:00:00, midnight as 2024-01-31."""
    if time is None:
        return None
    day, clock = time[:10], re.sub(r"(?:Z| ?UTC|\+00:?00)$", "", time[11:])
    clock = clock + ":00" if len(clock) == 5 else clock
    clock = clock.rstrip("0").rstrip(".") if "." in clock else clock
    return day if clock in ("", "00:00:00") else f"{day} {clock}"


def _all_match(texts: pl.Series, pattern: str) -> bool:
    known = texts.drop_nulls()
    return bool(known.len() and re.match(pattern, known[0]) and known.str.contains(pattern).all())


def _first(texts: pl.Series) -> str:
    return repr(cut(str(texts.drop_nulls()[0])))
