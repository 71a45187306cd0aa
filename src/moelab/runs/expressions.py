"""The language of `--let` and `--where`: SQL's arithmetic and conditions over the columns of one table, row by row.

A reader of its own, with no SQL engine behind it: what is not named here (other tables, sub-selects, aggregates, casts)
cannot be written. Every number is a 64-bit float. The text is read once, from left to right, and each part is
computed as it is read.
"""

from collections.abc import Callable

import polars as pl

from moelab.errors import InputError
from moelab.runs.names import breaks_off, named_column
from moelab.runs.operations import (
    ARITHMETIC,
    FUNCTIONS,
    NUMBER,
    TEXT,
    TRUTH,
    as_kind,
    choose,
    compare,
    constant,
    kind_of,
    known,
    matches,
    numeric,
    one_kind,
)
from moelab.runs.symbols import COMPARISONS, END, Symbol, no_function, read_symbols

MOST_NESTED = 40
"""Parentheses, functions and cases inside one another."""


def evaluate(table: pl.DataFrame, expression: str, option: str) -> pl.Series:
    """The value of an expression in each row: numbers (64-bit floats), text, or true and false.

    Raises InputError in one line that begins with `option` and names what is allowed.
    """
    try:
        return _Reader(table, read_symbols(expression)).whole()
    except InputError as error:
        raise InputError(f"{option}: {error}") from None


def holds(table: pl.DataFrame, condition: str, option: str) -> pl.Series:
    """Whether a condition holds in each row; a missing value satisfies none. Raises InputError as `evaluate` does."""
    held = evaluate(table, condition, option)
    if held.dtype != pl.Boolean:
        kind = kind_of(held)
        hint = f" (compare it: {held.name or 'x'} = 1)" if kind == NUMBER else ""
        raise InputError(f"{option}: expected true or false for each row, got {kind or 'nothing'}{hint}")
    return held.fill_null(False)


class _Reader:
    """Reads symbols by precedence: OR, AND, NOT, comparisons, sums, products, signs, values."""

    def __init__(self, table: pl.DataFrame, symbols: list[Symbol]) -> None:
        self.table, self.symbols, self.place, self.depth = table, symbols, 0, 0
        self.columns: dict[Symbol, pl.Series] = {}

    def whole(self) -> pl.Series:
        value = self.either()
        if self.next != END:
            raise self.unexpected("an operator such as + - * / % = < > AND OR IN BETWEEN LIKE")
        return value

    @property
    def next(self) -> Symbol:
        return self.symbols[self.place] if self.place < len(self.symbols) else END

    def take(self, *values: str) -> str | None:
        """The next symbol where it is one of these signs or words."""
        symbol = self.next
        if symbol.kind not in ("sign", "word") or symbol.value not in values:
            return None
        self.place += 1
        return symbol.value

    def expect(self, value: str) -> None:
        if not self.take(value):
            raise self.unexpected(value)

    def unexpected(self, wanted: str) -> InputError:
        last = self.symbols[self.place - 1] if self.place else END
        return breaks_off(self.table, wanted, last, self.next)

    def either(self) -> pl.Series:
        left = self.both()
        while self.take("OR"):
            left = as_kind(left, TRUTH, "OR") | as_kind(self.both(), TRUTH, "OR")
        return left

    def both(self) -> pl.Series:
        left = self.negated()
        while self.take("AND"):
            left = as_kind(left, TRUTH, "AND") & as_kind(self.negated(), TRUTH, "AND")
        return left

    def negated(self) -> pl.Series:
        count = 0
        while self.take("NOT"):
            count += 1
        value = self.comparison()
        if count:
            value = as_kind(value, TRUTH, "NOT")
        return ~value if count % 2 else value

    def comparison(self) -> pl.Series:
        left = self.sum()
        if sign := self.take(*COMPARISONS):
            if self.next == Symbol("word", "NULL"):
                raise InputError(f"nothing is {sign} NULL; write IS NULL or IS NOT NULL")
            left = compare(sign, left, self.sum())
        elif self.take("IS"):
            absent = not self.take("NOT")
            self.expect("NULL")
            left = known(left).is_null() if absent else ~known(left).is_null()
        elif word := self.take("NOT", "IN", "BETWEEN", "LIKE", "ILIKE"):
            opposite = word == "NOT"
            found = self.member(left, self.take("IN", "BETWEEN", "LIKE", "ILIKE") if opposite else word)
            left = ~found if opposite else found
        if self.next.kind == "sign" and self.next.value in COMPARISONS:
            raise InputError("one comparison at a time: write a < b AND b < c")
        return left

    def member(self, column: pl.Series, word: str | None) -> pl.Series:
        """After NOT or without it: IN (a, b), BETWEEN a AND b, LIKE 'pattern'."""
        if word == "IN":
            self.expect("(")
            options = self.listed("IN")
            found = compare("=", column, options[0])
            for option in options[1:]:
                found = found | compare("=", column, option)
            return found
        if word == "BETWEEN":
            low = self.sum()
            self.expect("AND")
            return compare(">=", column, low) & compare("<=", column, self.sum())
        if word is None or self.next.kind != "text":
            raise self.unexpected("a pattern in 'quotes'" if word else "IN, BETWEEN or LIKE")
        self.place += 1
        return matches(column, self.symbols[self.place - 1].value, word == "ILIKE")

    def sum(self) -> pl.Series:
        left = self.product()
        while sign := self.take("+", "-", "||"):
            right = self.product()
            if sign == "||":
                left = as_kind(left, TEXT, "||") + as_kind(right, TEXT, "||")
            else:
                left = numeric(ARITHMETIC[sign], sign, left, right)
        return left

    def product(self) -> pl.Series:
        left = self.signed()
        while sign := self.take("*", "/", "%"):
            left = numeric(ARITHMETIC[sign], sign, left, self.signed())
        return left

    def signed(self) -> pl.Series:
        negative = signs = 0
        while sign := self.take("+", "-"):
            negative, signs = negative + (sign == "-"), signs + 1
        value = self.value()
        if signs:
            value = as_kind(value, NUMBER, "a sign")
        return -value if negative % 2 else value

    def value(self) -> pl.Series:
        symbol = self.next
        (kind, value), self.place = symbol, self.place + 1
        if kind == "number":
            return self.same(float(value))
        if kind == "text":
            return self.same(value)
        if kind == "quoted" or (kind == "name" and self.next != Symbol("sign", "(")):
            return self.columns.setdefault(symbol, named_column(self.table, value, kind == "quoted"))
        if kind == "name":
            return self.nested(lambda: self.called(value))
        if value == "(":
            return self.nested(self.bracketed)
        if value == "CASE":
            return self.nested(self.case)
        self.place -= 1
        raise self.unexpected("a number, a column, 'text', a function or (")

    def nested(self, read: Callable[[], pl.Series]) -> pl.Series:
        self.depth += 1
        if self.depth > MOST_NESTED:
            raise InputError(f"parentheses and functions stand at most {MOST_NESTED} inside one another")
        value = read()
        self.depth -= 1
        return value

    def same(self, value: float | str | bool | None) -> pl.Series:
        """One value for every row."""
        return constant(value, self.table.height)

    def bracketed(self) -> pl.Series:
        value = self.either()
        self.expect(")")
        return value

    def listed(self, what: str) -> list[pl.Series]:
        """Values separated by commas, after the opening parenthesis and up to the closing one."""
        if self.take(")"):
            raise InputError(f"{what} takes at least one value")
        values = [self.either()]
        while self.take(","):
            values.append(self.either())
        self.expect(")")
        return values

    def called(self, name: str) -> pl.Series:
        """A function; its name has been read, its parenthesis not."""
        function = FUNCTIONS.get(name.upper())
        if function is None:
            raise InputError(no_function(name))
        self.expect("(")
        values = self.listed(name.upper())
        if not function.least <= len(values) <= function.most:
            count = str(function.least) + (f" to {function.most}" if function.most > function.least else "")
            raise InputError(f"{name.upper()} takes {count} values, got {len(values)}")
        return function.apply(*values)

    def case(self) -> pl.Series:
        """CASE [x] WHEN a THEN b ... [ELSE c] END."""
        subject = None if self.next == Symbol("word", "WHEN") else self.either()
        arms = []
        self.expect("WHEN")
        while True:
            when = self.either()
            self.expect("THEN")
            arms.append((when if subject is None else compare("=", subject, when), self.outcome()))
            if not self.take("WHEN"):
                break
        result = self.outcome() if self.take("ELSE") else self.same(None)
        self.expect("END")
        _, *values = one_kind([result, *(value for _, value in arms)], "CASE")
        for (when, _), value in reversed(list(zip(arms, values, strict=True))):
            result = choose(when, value, result, "CASE")
        return result

    def outcome(self) -> pl.Series:
        """What a case comes to: a value or NULL."""
        return self.same(None) if self.take("NULL") else self.either()
