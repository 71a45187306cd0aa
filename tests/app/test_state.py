"""The state of the page: an address, the options of a plan, a command; and no way to name a file."""

import shlex

import pytest

from moelab.app.controls import controls
from moelab.app.state import EXAMPLE, read_state
from moelab.errors import InputError

DIGEST = "0123456789abcdef" * 4


def test_equal_states_have_equal_addresses() -> None:
    pairs = [("max-params", "10B"), ("law", "abnar2025"), ("flops", " 1e21 "), ("tpot", ""), ("law", "all")]
    assert read_state(pairs).query == "flops=1e21&max-params=10B&law=abnar2025&law=all"
    assert read_state(read_state(pairs).values.items() - {("law", ("abnar2025", "all"))}).values["flops"] == "1e21"


def test_the_options_are_those_of_the_command() -> None:
    state = read_state([*EXAMPLE.items(), ("law", "all"), ("extrapolate", "yes")])
    assert state.options({}) == {
        "flops": "1e21", "max_params": "10B", "unique_tokens": "300B", "hardware": "h100", "tpot": "50ms",
        "law": ["all"], "extrapolate": True,
    }  # fmt: skip
    words = shlex.split(state.command)
    assert words[:2] == ["moelab", "plan"]
    assert words[-3:] == ["--law", "all", "--extrapolate"]


def test_an_upload_stands_for_its_file() -> None:
    state = read_state([("flops", "1e21"), ("law", f"upload:{DIGEST}")])
    assert state.uploads == [DIGEST]
    assert state.options({DIGEST: "/somewhere/x.json"})["law"] == ["/somewhere/x.json"]
    assert state.command == "moelab plan --flops 1e21 --law fit.json"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("law", "/etc/passwd"),
        ("law", "fit.json"),
        ("law", "upload:../../etc/passwd"),
        ("law", f"upload:{DIGEST}/.."),
        ("hardware", "device.yaml"),
        ("near", "../config.yaml"),
        ("flops", "/etc/passwd"),
        ("mfu", "table.yaml"),
        ("mfu", "table.YML"),
        ("flops", "1e21;rm"),
        ("flops", "<script>"),
        ("max-params", "9" * 41),
        ("kinds", "moe"[::-1]),
    ],
)
def test_values_that_could_be_more_than_a_number_are_refused(name: str, value: str) -> None:
    with pytest.raises(InputError, match=f"^{name}: expected"):
        read_state([(name, value)])


def test_unknown_and_repeated_fields_are_named() -> None:
    with pytest.raises(InputError, match=r"^space: no such field; known: flops, "):
        read_state([("space", "x.yaml")])
    with pytest.raises(InputError, match=r"^flops: expected one value, got 2"):
        read_state([("flops", "1e21"), ("flops", "1e22")])


def test_every_field_is_an_option_of_the_command() -> None:
    import inspect

    from moelab.cli.plan import command

    assert {name.replace("-", "_") for name in controls()} <= set(inspect.signature(command).parameters)
