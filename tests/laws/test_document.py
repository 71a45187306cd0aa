"""docs/laws.md is what the code generates."""

from pathlib import Path

from moelab.laws import all_laws, all_rules
from moelab.laws.document import catalogue_markdown

PAGE = Path(__file__).parents[2] / "docs" / "laws.md"


def test_the_page_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == catalogue_markdown(), "run moelab laws --markdown > docs/laws.md"


def test_every_law_and_rule_is_on_it() -> None:
    text = catalogue_markdown()
    assert all(f"## {law_id}\n" in text for law_id in all_laws())
    assert all(f"### {rule_id}\n" in text for rule_id in all_rules())
