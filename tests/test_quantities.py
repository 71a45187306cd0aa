"""Numbers as people write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moelab.errors import InputError
from moelab.quantities import (
    check_at_most,
    format_bytes,
    format_number,
    format_outside,
    format_seconds,
    parse_bandwidth,
    parse_bytes,
    parse_count,
    parse_flop_rate,
    parse_number,
    parse_price,
    parse_seconds,
    parse_share,
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e21", 1e21),
        ("300B", 3e11),
        ("20M", 2e7),
        ("1.5k", 1500),
        ("7_000", 7000),
        (".5T", 5e11),
        (3, 3.0),
        ("-2", -2),
    ],
)
def test_numbers(text: str | float, value: float) -> None:
    assert parse_number(text) == pytest.approx(value, rel=1e-15)


@pytest.mark.parametrize("text", ["", "abc", "1e", "10Q", "1 2", "nan", "inf", "1e999", "--5", True])
def test_bad_numbers_name_the_field(text: str) -> None:
    with pytest.raises(InputError, match=r"flops: .*1e21"):
        parse_number(text, "flops")


def test_units() -> None:
    assert parse_bytes("80GB") == 80e9
    assert parse_bytes("80GiB") == 80 * 2**30
    assert parse_seconds("50ms") == pytest.approx(0.05)
    assert parse_seconds(2) == 2
    assert parse_seconds("0") == 0
    with pytest.raises(InputError, match="tpot: expected a time with its unit, such as 50ms or 50s"):
        parse_seconds("50", "tpot")
    with pytest.raises(InputError, match="tpot"):
        parse_seconds("5 parsecs", "tpot")


def test_rates_of_devices() -> None:
    assert parse_bandwidth("3.35TB/s") == parse_bandwidth("3.35 TBps") == parse_bandwidth(3.35e12) == 3.35e12
    assert parse_bandwidth("400Gbit/s") == parse_bandwidth("400 Gbps") == 50e9
    assert parse_bandwidth("900GB") == 900e9
    with pytest.raises(InputError, match="network: '400Gb' may be bits or bytes; write 400GB/s or 400Gbit/s"):
        parse_bandwidth("400Gb/s", "network")
    for text in ("989.4TFLOPs", "989.4 TFLOP/s", "989.4T", "989.4 tflops", "0.9894PFLOPs"):
        assert parse_flop_rate(text) == pytest.approx(989.4e12)
    for text in ("2.5", "$2.50", "$2.5/h", "2.5/hour", "2.5 / h"):
        assert parse_price(text) == 2.5
    for parse in (parse_bandwidth, parse_flop_rate, parse_price):
        with pytest.raises(InputError, match="field: expected a number such as"):
            parse("lots", "field")


def test_a_range_names_both_ends() -> None:
    check_at_most(1e30, 1e30, "flops")
    for value in (0.0, -1.0, 1.1e30, float("nan"), float("inf")):
        with pytest.raises(InputError, match=r"flops: must be above 0 and at most 1e30, got"):
            check_at_most(value, 1e30, "flops")


def test_counts_are_whole() -> None:
    assert parse_count("2.5M") == 2_500_000
    with pytest.raises(InputError, match="whole"):
        parse_count("2.5")


@given(st.integers(0, 10**30))
def test_plain_digits_are_exact(value: int) -> None:
    assert parse_count(str(value)) == value
    assert parse_count(value) == value


@given(st.floats(1e-2, 1e14))
def test_formatted_numbers_read_back(value: float) -> None:
    assert parse_number(format_number(value)) == pytest.approx(value, rel=6e-3)


def test_formats() -> None:
    assert format_number(1.28e9) == "1.28B"
    assert format_number(512) == "512"
    assert format_number(999.96e6) == "1B"
    assert format_number(999_999) == "1M"
    assert format_number(None) == "-"
    assert format_bytes(46.7e9) == "46.7 GB"
    assert format_bytes(999.9e6) == "1 GB"
    assert format_bytes(999.4e6) == "999 MB"
    assert format_seconds(245) == "4 min 05 s"
    assert format_seconds(0.035) == "35 ms"


@pytest.mark.parametrize("text", ["010", "040", "-007", "00.5", "00", "0_1", "+01e3"])
def test_a_leading_zero_is_refused(text: str) -> None:
    """YAML 1.1, C and Python 2 read `010` as eight, people as ten."""
    for parse in (parse_number, parse_count, parse_bytes, parse_seconds):
        with pytest.raises(InputError, match=r"seed: write '.*' without its leading zero"):
            parse(text, "seed")


@pytest.mark.parametrize(("text", "value"), [("0", 0), ("0.5", 0.5), ("-0.25", -0.25), ("0e3", 0), ("1e-05", 1e-5)])
def test_a_zero_alone_or_before_the_point_is_read(text: str, value: float) -> None:
    assert parse_number(text) == value


@pytest.mark.parametrize(("text", "value"), [("0.1", 0.1), ("10%", 0.1), ("7 %", 0.07), (0.25, 0.25), ("33.5%", 0.335)])
def test_shares(text: str | float, value: float) -> None:
    assert parse_share(text) == value
    for wrong in ("10x", "%", "10%%", "1K"):
        with pytest.raises(InputError, match=r"within: expected a number such as 0\.1 or 10%"):
            parse_share(wrong, "within")
    with pytest.raises(InputError, match="flops: expected a number such as 1e21"):
        parse_number("10%", "flops")


def test_hours_minutes_seconds() -> None:
    assert parse_seconds("1:30:00") == 5400
    assert parse_seconds("100:00:01") == 360_001
    for text in ("5:20", "1:99:00", "1:2:3", "-1:00:00", "1:00:00s", "1:00"):
        with pytest.raises(InputError, match="time: expected a number such as 50ms"):
            parse_seconds(text, "time")
    with pytest.raises(InputError, match="tokens: expected a number"):
        parse_number("1:30:00", "tokens")


@pytest.mark.parametrize("value", [None, [], {}, [1], b"1", True, "x" * 10_000, 10**5000], ids=range(8))
def test_other_kinds_are_one_short_line(value: object) -> None:
    parsers = (parse_number, parse_count, parse_bytes, parse_seconds, parse_bandwidth, parse_flop_rate, parse_price)
    for parse in (*parsers, parse_share):
        with pytest.raises(InputError, match=r"^field: expected") as caught:
            parse(value, "field")  # type: ignore[arg-type]
        assert len(str(caught.value)) < 250


@pytest.mark.parametrize(
    ("distance", "text"),
    [(None, "unknown"), (0.0, "inside"), (0.5, "3.16x"), (3.2529, "1,790x"), (9.0, "1e9x"), (400.0, "beyond measure")],
)
def test_distances_outside_a_range(distance: float | None, text: str) -> None:
    assert format_outside(distance) == text
