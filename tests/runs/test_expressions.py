"""Expressions of `--let` and `--where`: floats throughout, row by row, one table and nothing else."""

import math
from pathlib import Path

import polars as pl
import pytest

from moelab.errors import InputError
from moelab.runs.expressions import MOST_NESTED, evaluate, holds
from moelab.runs.operations import FUNCTIONS
from moelab.runs.table import load_table, save_table

TABLE = pl.DataFrame(
    {
        "k": [1.0, -7.0, 2.5, None, float("nan")],
        "tokens": [1e9, 3e10, 4e10, 2e9, 5e9],
        "name": ["moe-a", "dense", None, "moe'b", "Moe_c"],
        "a b": [0.0, 1.0, 2.0, 3.0, 4.0],
        'a "x"': [1.0] * 5,
        "nothing": pl.Series([None] * 5, dtype=pl.Null),
    }
)


def value(expression: str) -> list[object]:
    return evaluate(TABLE.head(3), expression, "--let x").to_list()


def kept(condition: str) -> list[bool]:
    return holds(TABLE, condition, "--where").to_list()


@pytest.mark.parametrize(
    "expression",
    [
        "k + 2 * tokens - 3 / 4",
        "-k * -2 % 3",
        "(k + 1) * (k - 1)",
        "POW(k, 2) + SQRT(ABS(k)) + EXP(k / 10) + LN(tokens) + LOG10(tokens) + LOG2(tokens) + LOG1P(ABS(k))",
        "FLOOR(k) + CEIL(k) + SIGN(k) + CBRT(k) + MOD(k, 2)",
        "CASE WHEN k > 1 THEN 2 WHEN k < 0 THEN k ELSE tokens END",
        "CASE k WHEN 1 THEN 10 WHEN 2.5 THEN 20 END",
        "COALESCE(k, 1) + GREATEST(k, 2, 1) + LEAST(k, 0)",
        "UPPER(name) || '-' || LOWER(name)",
        "LENGTH(name)",
        "k > 1 AND tokens < 35e9 OR NOT (k = 1)",
        "k BETWEEN 0 AND 3 AND name LIKE 'moe%' OR name IS NULL",
        "k NOT IN (1, 2) AND k IN (2.5, -7)",
        "name NOT LIKE 'm_e%' OR name ILIKE 'MOE%'",
        "STARTS_WITH(name, 'den') OR ENDS_WITH(name, 'a')",
        'k <> 1 AND k != 3 AND k == k AND "a b" >= 0',
        "1 + 2 * 3 = 7 AND 8 / 2 / 2 = 2 AND 7 - 2 - 1 = 4",
    ],
)
def test_the_same_as_sql_with_float_literals(expression: str) -> None:
    """Polars' SQL is the reference, with every whole number written as a float."""
    import re

    floats = re.sub(r"(?<![\w.'])(\d+)(?![\w.'])", r"\1.0", expression)
    known = TABLE.head(3).select("k", "tokens", "name", "a b")
    reference = known.sql(f"SELECT ({floats}) AS x FROM self")["x"].to_list()
    for got, expected in zip(value(expression), reference, strict=True):
        assert got == (pytest.approx(expected) if isinstance(expected, float) else expected)


def test_every_number_is_a_float() -> None:
    assert value("POW(10, 10)") == [1e10] * 3  # 32-bit whole numbers: 1410065408
    assert value("2000000000 + 2000000000") == [4e9] * 3
    assert value("100000 * 100000 * 100000 * 100000") == [1e20] * 3
    assert value("1 / 2") == [0.5] * 3
    assert value("7 / 2 * 2") == [7.0] * 3
    assert value("9223372036854775807 + 1") == [2.0**63] * 3
    assert kept("tokens > 3 * POW(10, 10)") == [False, False, True, False, False]
    assert evaluate(pl.DataFrame({"n": [2**62]}), "n * 4", "--let x").to_list() == [2.0**64]


def test_sums_run_from_left_to_right() -> None:
    assert value("1e16 + 1 + 1 - 1e16") == [0.0] * 3


def test_what_has_no_value_is_missing_or_not_finite() -> None:
    assert value("1 / 0") == [math.inf] * 3
    assert all(math.isnan(x) for x in evaluate(TABLE.head(3), "LN(-1)", "--let x"))
    assert evaluate(TABLE, "k + 1", "--let x").null_count() == 1
    assert evaluate(TABLE, "nothing + 1", "--let x").null_count() == 5


def test_a_missing_value_satisfies_no_condition() -> None:
    for condition in ("k > -100", "k <= 100", "NOT k > 100", "k != 100", "k NOT IN (100)", "k BETWEEN -100 AND 100"):
        assert kept(condition) == [True, True, True, False, False], condition
    assert kept("k IS NULL") == kept("NOT k IS NOT NULL") == [False, False, False, True, True]
    assert kept("name = 'dense' OR k > 0") == [True, True, True, False, False]
    assert kept("nothing = 1") == kept("nothing = 'a'") == kept("nothing > k") == [False] * 5
    assert kept("nothing IS NULL") == [True] * 5
    assert evaluate(TABLE, "GREATEST(k, 0)", "x").to_list() == [1.0, 0.0, 2.5, None, None]


def test_names_and_text_in_quotes() -> None:
    assert value('"a b" + "a ""x"""') == [1.0, 2.0, 3.0]
    assert kept("name = 'moe''b'") == [False, False, False, True, False]
    assert kept("name = 'SELECT * FROM self; --'") == [False] * 5
    assert kept("name LIKE 'moe_%'") == [True, False, False, True, False]
    assert kept("name LIKE '.*'") == [False] * 5


def test_truth_and_numbers_compare_as_one_and_zero() -> None:
    flags = load_table(pl.DataFrame({"flag": [True, False]}), where=["flag = TRUE"])
    assert flags["flag"].to_list() == [1.0]
    with pytest.raises(InputError, match=r"AND takes true or false, got a number \(compare it: flag = 1\)"):
        load_table(pl.DataFrame({"flag": [1, 0]}), where=["flag AND flag = 1"])
    with pytest.raises(InputError, match=r"expected true or false for each row, got a number \(compare it: flag = 1\)"):
        load_table(pl.DataFrame({"flag": [1, 0]}), where=["flag"])


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_columns_of_truth_are_conditions_and_numbers(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"runs.{suffix}"
    save_table(pl.DataFrame({"ok": [True, False, None], "n": [1.0, 2.0, 3.0]}), path)
    for condition in ("ok", "ok = true", "ok = 1", "ok AND n < 3", "NOT (ok = false) AND ok IS NOT NULL", "ok + 1 = 2"):
        assert load_table(path, where=[condition])["n"].to_list() == [1.0], condition
    assert load_table(path, where=["NOT ok"])["ok"].to_list() == [0.0]
    assert load_table(path, let=["big = n > 1"], where=["big"])["big"].to_list() == [1.0, 1.0]


def test_words_for_truth_beside_missing_ones(tmp_path: Path) -> None:
    path = tmp_path / "runs.csv"
    path.write_text("ok,n\nTrue,1\n NA,2\nfalse,3\n")
    assert load_table(path)["ok"].to_list() == [1.0, None, 0.0]
    assert load_table(path, where=["ok"])["n"].to_list() == [1.0]


DAYS = ["2024-01-31", "2024-02-01T00:00:00Z", "2024-02-01 10:30", None]


@pytest.mark.parametrize(
    ("condition", "rows"),
    [
        ("day > '2024-01-31'", [1, 2]),
        ("day = '2024-02-01'", [1]),
        ("day BETWEEN '2024-02-01' AND '2024-02-01 10:30:00.0'", [1, 2]),
        ("day IN ('2024-01-31', '2024-02-01T10:30:00+00:00')", [0, 2]),
        ("day < '2024-02-01T10:30'", [0, 1]),
        ("GREATEST(day, '2024-02-01') = '2024-02-01'", [0, 1]),
        ("day != 'unknown'", [0, 1, 2]),
        ("COALESCE(NULLIF(day, day), '2024-02-01') = '2024-02-01T00:00'", [0, 1, 2, 3]),
        ("NULLIF(day, '2024-01-31') >= '2024-02-01' OR NULLIF('2024-03-01', day) < '2024-01-01'", [1, 2]),
    ],
)
def test_dates_compare_as_times_however_they_are_written(condition: str, rows: list[int]) -> None:
    kept = holds(pl.DataFrame({"day": DAYS}), condition, "--where")
    assert kept.arg_true().to_list() == rows


@pytest.mark.parametrize(
    ("days", "condition", "message"),
    [
        (DAYS, "day > 2024-01-31", "a number and text; a date stands in quotes as '2024-01-31'"),
        (DAYS, "day > 'January'", "'January' is compared with dates; a date stands in quotes"),
        (DAYS, "'1/2/2024' < day", "'1/2/2024' does not order as text"),
        (["31/01/2024", "1/2/2024"], "day > '2024-01-31'", "'31/01/2024' does not order as text"),
        (["2024-1-5"], "day > '2024-01-31'", "'2024-1-5' does not order as text"),
        (["2024-01-05T10:00+02:00"], "day > '2024-01-05'", r"does not order as text; .* all in one time zone"),
    ],
)
def test_dates_that_do_not_compare_are_refused(days: list[str], condition: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        holds(pl.DataFrame({"day": days}), condition, "--where")


@pytest.mark.parametrize("name", ["end", "Case", "IN", "not", "null", "is", "like", "between"])
def test_a_column_named_like_a_word_needs_quotes(name: str) -> None:
    table = pl.DataFrame({name: [1.0, 4.0]})
    assert holds(table, f'"{name}" > 3', "--where").to_list() == [False, True]
    with pytest.raises(InputError, match=f'the column "{name}" needs its quotes'):
        holds(table, f"{name} > 3", "--where")


def test_a_column_in_other_case_is_named() -> None:
    with pytest.raises(InputError, match='unable to find column "TOKENS"; valid columns: tokens'):
        holds(TABLE, "TOKENS > 3", "--where")


ATTACKS = [
    "k > 0 AND 1 IN (SELECT x FROM read_csv('/etc/passwd'))",
    "k IN (SELECT k FROM self)",
    "(SELECT 1)",
    "(SELECT MAX(k) FROM self) > 0",
    "EXISTS (SELECT 1 FROM self)",
    "EXISTS(SELECT 1)",
    "k = ANY(SELECT k FROM self)",
    "k > ALL (1, 2)",
    "k = SOME (1)",
    "k FROM self UNION SELECT 1 FROM self",
    "k) FROM read_csv('x.csv') --",
    "k) FROM read_parquet('x') WHERE (1=1",
    "k AS x, read_csv('y') AS z",
    "read_csv('x.csv')",
    "READ_PARQUET ('x')",
    '"read_csv"(1)',
    "scan_csv('x')",
    "WITH t AS (SELECT 1) SELECT * FROM t",
    "k INTERSECT k",
    "k EXCEPT k",
    "k OVER (ORDER BY k)",
    "ROW_NUMBER() OVER ()",
    "LAG(k, 1)",
    "RANDOM()",
    "RAND()",
    "NOW()",
    "CURRENT_TIMESTAMP()",
    "VERSION()",
    "GETENV('HOME')",
    "k; SELECT 1",
    "k -- comment",
    "k /* comment */",
    "k # comment",
    "*",
    "COLUMNS('.*')",
    "self.k",
    "{k}",
    "k[0]",
    "ARRAY[1]",
    "k::int",
    "CAST(k AS INT)",
    "TRY_CAST(k AS DATE)",
    "DATE '2024-01-01'",
    "INTERVAL '1 day'",
    "X'41'",
    "0x41",
    "$1",
    "?",
    ":k",
    "@k",
    "`k`",
    "\\k",
    "k ~ 'x'",
    "k & 1",
    "k | 1",
    "k << 70",
    "k // 2",
    "k ** 2",
    "k ^ 2",
    "k ! 2",
    "(1, 2)",
    "1, 2",
    "()",
    "ABS()",
    "POW(1)",
    "POW(1, 2, 3)",
    "ABS(k",
    "'open",
    '"open',
    '""',
    "CASE END",
    "CASE WHEN k > 1 THEN 2",
    "k IS",
    "k IS 3",
    "k NOT 3",
    "k NOT IN k",
    "k IN ()",
    "k LIKE k",
    "name LIKE",
    f"name LIKE '{'_' * 1_001}'",
    "k BETWEEN 1",
    "NULL",
    "k = NULL",
    "k + NULL",
    "1 < k < 3",
    "k = k = k",
    "1e999",
    "1_000",
    "300B",
    "1.2.3",
    "1e",
    "\u0663",
    "k\u202e+ 1",
    "k\x1b[31m",
    "k\x00",
    "k = 'a'",
    "name + 1",
    "name > 3",
    "-name",
    "ABS(name)",
    "LOWER(k)",
    "name || k",
    "NOT k",
    "IF(k, 1, 2)",
    "CASE WHEN k > 1 THEN 'a' ELSE 2 END",
    "name = \"dense\"",
    "LOG(k)",
    "k k",
    "",
]  # fmt: skip


@pytest.mark.parametrize("expression", ATTACKS)
def test_what_is_not_of_one_row_is_refused_in_one_line(expression: str) -> None:
    with pytest.raises(InputError) as caught:
        evaluate(TABLE, expression, "--let x")
    assert str(caught.value).startswith("--let x: ")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    "name", ["SUM", "avg", "MEAN", "MIN", "MAX", "COUNT", "MEDIAN", "STDDEV", "VAR", "FIRST", "LAST", "QUANTILE"]
)
def test_aggregates_are_refused(name: str) -> None:
    for text in (f"{name}(k)", f"k / {name}(k)", f"k > {name} (k)", f"ABS({name}(k))"):
        with pytest.raises(InputError, match=r"over many rows|GREATEST|LEAST"):
            evaluate(TABLE, text, "--where")


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("FOO(k)", "no function 'FOO'; allowed: ABS, CBRT, .*, UPPER$"),
        ("k IN (SELECT 1)", "SELECT is not part of an expression: it sees the columns of this table alone"),
        ("read_csv('a.csv')", "READ_CSV is not part of an expression"),
        ("k UNION k", "UNION is not part of an expression"),
        ("tokns * 2", 'unable to find column "tokns"; valid columns: tokens'),
        ('name = "dense"', "text stands in 'single quotes'"),
        ("CAST(k AS INT)", "no function CAST: numbers are 64-bit floats; whole ones by FLOOR or ROUND"),
        ("LOG(k)", "no function LOG: write LN, LOG2 or LOG10"),
        ("k = NULL", "write IS NULL"),
        ("1 < k < 3", "write a < b AND b < c"),
        ("k +", "expected a number, a column, 'text', a function or \\(, got its end"),
        ("name > 3", "> takes values of one kind, got a number and text"),
        ("1e999", "beyond the largest 64-bit float"),
    ],
)
def test_the_line_names_what_is_allowed(expression: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        evaluate(TABLE, expression, "--let x")


def test_no_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "other.csv").write_text("x\n1\n")
    (tmp_path / "runs.csv").write_text("k\n1\n2\n")
    for query in (f"k IN (SELECT x FROM read_csv('{tmp_path}/other.csv'))", f"read_csv('{tmp_path}/other.csv') = k"):
        with pytest.raises(InputError, match="sees the columns of this table alone"):
            load_table(tmp_path / "runs.csv", where=[query])


def test_long_expressions_are_answered_and_longer_ones_refused() -> None:
    assert value(" + ".join(["k"] * 4000)) == pytest.approx([4000.0, -28000.0, 10000.0])
    assert kept("k = 1 OR " * 2000 + "k = 1") == [True, False, False, False, False]
    assert value("- " * 4001 + "k") == [-1.0, 7.0, -2.5]
    assert kept("NOT " * 4001 + "k = 1") == [False, True, True, False, False]
    with pytest.raises(InputError, match="at most 10,000 symbols"):
        value("+".join(["k"] * 10_000))


@pytest.mark.parametrize("deep", ["({})", "ABS({})", "CASE WHEN 1 = 1 THEN {} END", "-({})", "IF(1 = 1, {}, 2)"])
def test_nesting_is_bounded(deep: str) -> None:
    def nested(levels: int) -> str:
        text = "k"
        for _ in range(levels):
            text = deep.format(text)
        return text

    value(nested(MOST_NESTED))
    for levels in (MOST_NESTED + 1, 1500):
        with pytest.raises(InputError, match=r"at most 40 inside one another|at most 10,000 symbols"):
            value(nested(levels))


def test_a_table_of_one_row_or_of_none() -> None:
    assert evaluate(TABLE.head(1), "5", "x").to_list() == [5.0]
    assert evaluate(TABLE.head(0), "k + 5", "x").to_list() == []
    assert holds(TABLE.head(0), "k > 5 AND name = 'a'", "x").to_list() == []


def test_columns_of_other_kinds() -> None:
    from datetime import date, datetime

    table = pl.DataFrame({"day": [date(2024, 1, 2)], "parts": [[1, 2]], "kind": pl.Series(["a"], dtype=pl.Categorical)})
    assert holds(table, "day > '2024-01-01' AND kind = 'a'", "x").to_list() == [True]
    times = pl.DataFrame({"at": [datetime(2024, 1, 1), datetime(2024, 1, 1, 5), datetime(2024, 1, 2)]})
    assert holds(times, "at = '2024-01-01'", "x").to_list() == [True, False, False]
    assert holds(times, "at > '2024-01-01' AND at <= '2024-01-01 05:00:00'", "x").to_list() == [False, True, False]
    with pytest.raises(InputError, match="the column 'parts' holds neither numbers nor text"):
        holds(table, "parts = 1", "x")


def test_every_function_computes() -> None:
    """Each name of the list is called once somewhere above or here."""
    calls = {
        "IF": "IF(k > 1, 1, 0)", "NULLIF": "NULLIF(k, 1)", "ROUND": "ROUND(k)", "POWER": "POWER(k, 2)",
    }  # fmt: skip
    assert value(calls["IF"]) == [0.0, 0.0, 1.0]
    assert value(calls["NULLIF"]) == [None, -7.0, 2.5]
    assert value("ROUND(k * 1.234, 1)") == pytest.approx([1.2, -8.6, 3.1])
    assert value(calls["ROUND"]) == [1.0, -7.0, 2.0]
    assert value(calls["POWER"]) == [1.0, 49.0, 6.25]
    text = Path(__file__).read_text(encoding="utf-8")
    assert all(f"{name}(" in text for name in FUNCTIONS)


def test_a_date_that_stands_alone_beside_missing_ones_leaves_them_missing() -> None:
    table = pl.DataFrame({"day": ["2024-01-31", None, "2024-01-31"]})
    assert holds(table, "day <= '2024-02-01'", "--where").to_list() == [True, False, True]
    assert holds(table, "day IS NULL OR day > '2024-01-31'", "--where").to_list() == [False, True, False]
