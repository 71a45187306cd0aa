"""Text from outside never acts: not in a terminal, not in Markdown."""

import pytest

from moelab.printable import fenced, markdown, printable, short, warn

ACTING = {
    "\x1b[31mred": r"\x1b[31mred",
    "over\rwritten": r"over\rwritten",
    "two\nlines\tand a tab": r"two\nlines\tand a tab",
    "\x9b31m": r"\x9b31m",
    "\x00\x07\x7f": r"\x00\x07\x7f",
    "gpj.\u202eexe": r"gpj.\u202eexe",
    "\u2066isolated\u2069": r"\u2066isolated\u2069",
    "line\u2028separator": r"line\u2028separator",
    "half a pair \ud800": r"half a pair \ud800",
}


@pytest.mark.parametrize(("text", "expected"), list(ACTING.items()), ids=range(len(ACTING)))
def test_what_acts_is_shown(text: str, expected: str) -> None:
    assert printable(text) == expected
    assert printable(text).isprintable()
    printable(text).encode()


@pytest.mark.parametrize(
    "text", ["plain", "1e-3, 50 %", "ü β 中文 עברית عربى", "👩‍🚀 🇪🇺", "[bold]x[/bold]", "", "a\\x1b"]
)
def test_other_text_stays(text: str) -> None:
    assert printable(text) == text


def test_kept_characters() -> None:
    assert printable("a\n\x1bb\t", keep="\n\t") == "a\n\\x1bb\t"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[x](javascript:alert(1))", r"\[x\](javascript:alert(1))"),
        ("<script>", r"\<script\>"),
        ("a | b\nc", r"a \| b\\nc"),
        ("**b** `c` ~~d~~ $e$ &lt;", r"\*\*b\*\* \`c\` \~\~d\~\~ \$e\$ \&lt;"),
        ("_a_ __b__ c_d e_", r"\_a\_ \_\_b\_\_ c_d e\_"),
        ("CC-BY 4.0, see https://a.b/c_d", "CC-BY 4.0, see https://a.b/c_d"),
    ],
)
def test_markdown_shows_the_text(text: str, expected: str) -> None:
    assert markdown(text) == expected


def test_a_fence_is_longer_than_any_in_the_text() -> None:
    assert fenced("a: 1\n") == "```\na: 1\n```"
    assert fenced("a: '```\x1b'\nb") == "````\na: '```\\x1b'\nb\n````"


def test_values_in_messages_are_short() -> None:
    nested: object = "x"
    for _ in range(5000):
        nested = [nested, nested]  # 2**5000 of them, written out
    for value in ("x" * 1000, 10**5000, -(10**100), nested, {"a": nested}, b"x" * 100, list(range(10**5))):
        assert len(short(value)) <= 60
    assert short("a\x1b") == r"'a\x1b'"
    assert short(3) == "3"
    assert short(2.5) == "2.5"


def test_a_warning_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    warn("a\nb  \x1b[2Jc")
    assert capsys.readouterr().err == "warning: a b \\x1b[2Jc\n"
