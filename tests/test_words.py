"""The words of `words.txt` appear nowhere a reader looks: not in the source, the docs, the README or the help."""

import re
from pathlib import Path
from typing import Any

import pytest
import typer

from moelab.cli import main, root

ROOT = Path(__file__).parent.parent
SUFFIXES = {".py", ".yaml", ".j2", ".c", ".md", ".ipynb"}
MOST_EXEMPTIONS = 10


def read_rules() -> tuple[list[re.Pattern[str]], list[re.Pattern[str]]]:
    """The expressions of words that are out, and of passages that are exempt."""
    lines = Path(__file__).with_name("words.txt").read_text(encoding="utf-8").splitlines()
    rules = [line for line in lines if line.strip() and not line.startswith("#")]
    words = [line for line in rules if not line.startswith("exempt:")]
    exempt = [line.removeprefix("exempt:").strip() for line in rules if line.startswith("exempt:")]
    return [_compiled(each) for each in words], [_compiled(each) for each in exempt]


def _compiled(expression: str) -> re.Pattern[str]:
    return re.compile(expression.replace(" ", r"\s+"), re.IGNORECASE)


WORDS, EXEMPT = read_rules()
ONE_WORD = re.compile(r"\\b[a-z()|?]*(\\b|\\w\*)")
"""A rule about single words: it finds something in a text if it does so among the text's different words."""


def found(text: str) -> list[tuple[int, str]]:
    """(line number, word) of every word that is out; identifiers are split at underscores and capitals."""
    plain = plain_of(text)
    return lines_of(plain, there({*re.findall(r"\w+", plain)}))


def plain_of(text: str) -> str:
    """The text with identifiers as words and exempt passages blotted out."""
    plain = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", text.replace("_", " "))
    for passage in EXEMPT:
        plain = passage.sub(lambda match: re.sub(r"\S", "·", match[0]), plain)
    return plain


def there(words: set[str]) -> list[re.Pattern[str]]:
    """The rules that may find something where these words are."""
    together = "\n".join(words)
    return [rule for rule in WORDS if not ONE_WORD.fullmatch(rule.pattern) or rule.search(together)]


def lines_of(plain: str, rules: list[re.Pattern[str]]) -> list[tuple[int, str]]:
    return sorted(
        {(plain.count("\n", 0, match.start()) + 1, match[0]) for rule in rules for match in rule.finditer(plain)}
    )


def files() -> list[Path]:
    """Source, docs (the log included, the changelog not), notebooks and the README."""
    folders = [path for room in ("src", "docs", "notebooks") for path in sorted((ROOT / room).rglob("*"))]
    return [path for path in folders if path.suffix in SUFFIXES] + [ROOT / "README.md"]


def read(path: Path) -> str:
    """A file's text; a notebook's without its pictures."""
    text = path.read_text(encoding="utf-8")
    return re.sub(r'"image/png": "[^"]*"', "", text) if path.suffix == ".ipynb" else text


def test_files_have_no_word_that_is_out() -> None:
    texts = {path: plain_of(read(path)) for path in files()}
    rules = there({word for plain in texts.values() for word in re.findall(r"\w+", plain)})
    hits = [
        f"{path.relative_to(ROOT)}:{line}:{' '.join(word.split())}"
        for path, plain in texts.items()
        for line, word in lines_of(plain, rules)
    ]
    assert not hits, f"{len(hits)} words of tests/words.txt:\n" + "\n".join(hits)


def commands() -> list[tuple[str, ...]]:
    """Every command as its words, groups included: (), (plan,), (data,), (data, prepare), ..."""
    every: list[tuple[str, ...]] = []

    def walk(command: Any, words: tuple[str, ...]) -> None:
        every.append(words)
        if hasattr(command, "list_commands"):
            for name in command.list_commands(None):
                walk(command.get_command(None, name), (*words, name))

    walk(typer.main.get_command(root), ())
    return every


def test_help_has_no_word_that_is_out(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    hits = []
    for command in commands():
        with pytest.raises(SystemExit) as end:
            main([*command, "--help"])
        assert end.value.code == 0
        text = capsys.readouterr().out
        assert "Usage" in text
        hits += [f"moelab {' '.join([*command, '--help'])}:{line}:{word}" for line, word in found(text)]
    assert not hits, f"{len(hits)} words of tests/words.txt:\n" + "\n".join(hits)


def test_exemptions_are_few_and_have_reasons() -> None:
    lines = Path(__file__).with_name("words.txt").read_text(encoding="utf-8").splitlines()
    places = [number for number, line in enumerate(lines) if line.startswith("exempt:")]
    assert len(places) == len(EXEMPT) <= MOST_EXEMPTIONS
    assert all(lines[number - 1].startswith("# ") for number in places)


@pytest.mark.parametrize(
    "text",
    [
        "the law says", "as_it_is_said", "SAYING", "def _say(", "a word\n    about it", "Voices", "no rival's loss",
        "_TELL = 1", "Mind: it is slow", "ABSURD = 100", "class Field:", "one is dearer", "it was heard", "relaxation",
        "held\ninside", "a loss of 1. ", "_dense_twin", "JurorVote", "ears", "silently", "told about parts", "MOUTH",
    ],
)  # fmt: skip
def test_a_word_is_found_in_any_form(text: str) -> None:
    assert found(text)


@pytest.mark.parametrize(
    "text",
    [
        "runs are told apart by their rate", "tells the two sorts of runs\n    apart", "d_model: Count = Field(le=2)",
        "from pydantic import BaseModel, Field", "the field of a config", "an essay on early learning",
        "a loss of 1.25", "indoors", "shear", "Field or column", "remind: me", "essays", "wordy abouts",
    ],
)  # fmt: skip
def test_other_words_pass(text: str) -> None:
    assert not found(text)
